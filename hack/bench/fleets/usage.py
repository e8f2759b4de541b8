"""What processes use: CPU time of one with and without its children, memory of many by what they are (proc(5))."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cpu:
    """Seconds of user and system time: of the process, and of its children that have ended."""

    own: float
    children: float

    def since(self, before: Cpu) -> Cpu:
        return Cpu(own=self.own - before.own, children=self.children - before.children)


def cpu(stat: str) -> Cpu:
    """Of a line of /proc/<pid>/stat."""
    fields = [int(field) for field in stat.rpartition(")")[2].split()[11:15]]
    return Cpu(own=(fields[0] + fields[1]) / _TICKS, children=(fields[2] + fields[3]) / _TICKS)


def cpu_of(pid: int) -> Cpu:
    return cpu(Path(f"/proc/{pid}/stat").read_text())


def role(command: str) -> str:
    """What a process of a rig is, by its command line with spaces between the words; "" for what belongs to no rig."""
    if "keeper.py" in command:  # of the tests' rigs
        return ""
    for mark, name in (
        ("/shared/agent/", "agents"),
        ("/shared/simulator", "engines"),
        ("llmop controller", "controller"),
        ("llmop gateway", "gateway"),
        ("slurmstepd", "slurmstepd"),
        ("slurmctld", "slurmctld"),
        ("slurmd", "slurmd"),
    ):
        if mark in command:
            return name
    return ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Together:
    """What all processes of one role use: their proportional share of memory (Pss) in MB, CPU seconds of each by process id."""

    memory_mb: float
    cpu_s: Mapping[int, float]

    def cpu_since(self, before: Together) -> float:
        """CPU seconds of those that were there before and still are."""
        return sum(self.cpu_s[pid] - before.cpu_s[pid] for pid in self.cpu_s.keys() & before.cpu_s.keys())


def by_role() -> Mapping[str, Together]:
    sizes: collections.Counter[str] = collections.Counter()
    times: dict[str, dict[int, float]] = collections.defaultdict(dict)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it has ended meanwhile
            name = role((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            if name:
                rollup = (entry / "smaps_rollup").read_text()
                times[name][int(entry.name)] = cpu((entry / "stat").read_text()).own
                sizes[name] += int(rollup.partition("\nPss:")[2].split()[0])
    return {
        name: Together(memory_mb=round(sizes[name] / 1024, 1), cpu_s=times[name]) for name in sorted(times)
    }


def available_mb() -> int:
    """MemAvailable of this machine."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    raise RuntimeError("/proc/meminfo does not say how much memory is available")
