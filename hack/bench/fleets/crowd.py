"""Many agents in one process, for fleets that are larger than this machine's memory: run as a program, `crowd.py <door>`.

Each takes the jobs of one door; agents wait with select(2), so that there is room for a hundred or so behind each.

The jobs are real. In the place of the node's Python each runs `stand-in`, a shell script that says in the door directory that it is
there, and waits to be told its exit code. This program is the agent of each of them: the agent's own code, with its claim, its
heartbeats and its orders, but for the engine, which is not there and always ready.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

from llmop.agent import agent

LOOK_S = 0.1
STACK_BYTES = 256 * 1024  # of each thread; there are three for each agent
PORT = 9  # of engines that are not there


def stand_in(doors: Path, number: int) -> str:
    """The script that jobs run with the arguments of a Python: -I <agent> --config <replica.json>. The doors are 0 to `number` - 1."""
    quoted = shlex.quote(str(doors))
    return (
        "#!/bin/sh\n"
        f"cd {quoted}/$((SLURM_JOB_ID % {number})) || exit 73\n"
        'mkfifo "$SLURM_JOB_ID.code" || exit 73\n'
        'printf "%s\\n" "$$" "$SLURMD_NODENAME" "$4" > ".$SLURM_JOB_ID"\n'
        'mv ".$SLURM_JOB_ID" "$SLURM_JOB_ID.job"\n'
        'read -r code < "$SLURM_JOB_ID.code"\n'
        'exit "${code:-70}"\n'
    )


class StandIn(agent.Agent):
    """An agent without an engine, in threads of the crowd's process."""

    def __init__(self, door: Path, job_id: str, pid: int, node: str, config: str) -> None:
        environment = {"SLURM_JOB_ID": job_id, "SLURMD_NODENAME": node}
        super().__init__(agent.Config.load(config), agent.Job(environment), environment)
        self._code = door / f"{job_id}.code"
        self.pid = pid

    def live(self) -> None:
        """From the claim to the exit code of the job."""
        try:
            self.run()
        except agent.End as end:
            self.finish(end)
            with (
                contextlib.suppress(OSError),
                open(os.open(self._code, os.O_WRONLY | os.O_NONBLOCK), "w") as code,
            ):  # nobody reads where the job is gone
                code.write(f"{end.code}\n")

    def run(self) -> None:
        self.claim()
        urls = agent.addresses(self.config)
        self.addresses = agent.Addresses(urls[0] if urls else "")
        self.channel.start()
        self.set_ready()
        while self.plan is None:
            self.wakeup.wait(60.0)
            self.read_mail()
        self.drain()

    def report(self, source: str) -> agent.Document:
        self.addresses.update(source)
        with self.lock:
            self.seq += 1
            return dict(
                self.identity(),
                seq=self.seq,
                phase=self.phase,
                endpoint={"host": self.addresses.host, "port": PORT},
                engineRestarts=0,
                detail=self.detail,
                connections=0,
                progress=None,
            )

    def told(self, number: int) -> None:
        """A signal to the job."""
        self.signals.add(number)
        self.wakeup.set()


def run(door: Path) -> None:
    """Serves the jobs that come through the door, until it is killed."""
    threading.stack_size(STACK_BYTES)
    known: dict[str, StandIn] = {}
    while True:
        for entry in sorted(door.glob("*.job")):
            pid, node, config = entry.read_text().splitlines()
            entry.unlink()
            each = StandIn(door, entry.stem, int(pid), node, config)
            known[entry.stem] = each
            threading.Thread(target=each.live, daemon=True).start()
        for job_id, each in list(known.items()):
            if not Path(f"/proc/{each.pid}").exists():
                del known[job_id]
                each.told(signal.SIGTERM)
        time.sleep(LOOK_S)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
