"""The script that jobs of a crowd run in the place of a Python."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from hack.bench.fleets import crowd


@pytest.fixture
def door(tmp_path: Path) -> Path:
    """Of the jobs with odd numbers."""
    for number in ("0", "1"):
        (tmp_path / "the doors" / number).mkdir(parents=True)
    script = tmp_path / "stand-in"
    script.write_text(crowd.stand_in(tmp_path / "the doors", 2))
    script.chmod(0o755)
    return tmp_path / "the doors" / "1"


def test_a_job_says_where_it_is_and_ends_with_the_code_that_it_is_told(door: Path) -> None:
    job = subprocess.Popen(
        [str(door.parents[1] / "stand-in"), "-I", "/agent.py", "--config", "/a replica/replica.json"],
        env={"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n3"},
    )
    deadline = time.monotonic() + 30
    while not (door / "7.job").exists():
        assert time.monotonic() < deadline
        assert job.poll() is None
        time.sleep(0.01)
    assert [str(job.pid), "n3", "/a replica/replica.json"] == (door / "7.job").read_text().splitlines()
    (door / "7.code").write_text("75\n")
    assert 75 == job.wait(30)


def test_a_job_without_its_door_ends_at_once(door: Path) -> None:
    door.rmdir()
    environment = {"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n3"}
    done = subprocess.run(
        [str(door.parents[1] / "stand-in")], env=environment, capture_output=True, check=False
    )
    assert 73 == done.returncode
