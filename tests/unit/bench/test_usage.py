"""What the benchmarks read out of /proc."""

from __future__ import annotations

import os

import pytest
from hack.bench.fleets import usage

TICKS = os.sysconf("SC_CLK_TCK")


def test_cpu_time_is_that_of_the_process_and_of_its_ended_children() -> None:
    stat = "17 (a (strange) name) S 1 17 17 0 -1 4194560 100 0 0 0 150 50 30 20 20 0 1 0 300 0 0"
    assert usage.Cpu(own=200 / TICKS, children=50 / TICKS) == usage.cpu(stat)


def test_what_was_used_between_two_looks() -> None:
    before, after = usage.Cpu(own=1.0, children=0.5), usage.Cpu(own=4.0, children=0.75)
    assert usage.Cpu(own=3.0, children=0.25) == after.since(before)


def test_processes_that_came_or_went_between_two_looks_do_not_count() -> None:
    before = usage.Together(memory_mb=10.0, cpu_s={1: 1.0, 2: 5.0})
    after = usage.Together(memory_mb=10.0, cpu_s={1: 1.5, 3: 7.0})
    assert 0.5 == after.cpu_since(before)


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (
            "/v/bin/python -I /t/fleet/shared/agent/86676d0e.py --config /t/fleet/shared/replicas/a/replica.json",
            "agents",
        ),
        ("/v/bin/python -I -S /t/fleet/shared/agent/86676d0e.py --guard", "agents"),
        ("/v/bin/python /t/fleet/shared/simulator --hostname=127.0.0.1 --port=1", "engines"),
        ("/v/bin/python /v/bin/llmop controller --state-dir /t", "controller"),
        ("/v/bin/python /v/bin/llmop gateway --state-dir /t", "gateway"),
        ("slurmstepd: [2.batch]", "slurmstepd"),
        ("slurmd -D -N n1", "slurmd"),
        ("slurmctld -D -c -i", "slurmctld"),
        ('python -I -S /w/tests/rigs/keeper.py {"argv": ["slurmd", "-D"]}', ""),
        ("sleep 100", ""),
    ],
)
def test_processes_are_told_apart_by_their_command_lines(command: str, role: str) -> None:
    assert role == usage.role(command)
