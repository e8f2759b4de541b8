"""Keeps one job of the local driver: what slurmstepd is to Slurm. Run as `python -I -S local_runner.py <job directory>`.

Uses the standard library only and imports nothing of llmop, so that it starts fast and keeps working while llmop is replaced.
The first process returns 0 once the runner has registered; the runner lives in a session of its own until the job has ended.

The job directory holds `job.json` (what was asked for), `script`, and `state.json`, which only the runner writes. Signals to
the runner: TERM cancels the job. The batch process dies with the runner.
"""

import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

LAUNCH_FAILURE = 53  # what Slurm shows for a job whose output file cannot be made
LIVE = frozenset({"PENDING", "RUNNING", "COMPLETING"})

_PR_SET_PDEATHSIG = 1  # prctl(2)
_PR_SET_CHILD_SUBREAPER = 36
_HANDLED = {signal.SIGTERM, signal.SIGCHLD}
_SHORTEST_POLL_S, _LONGEST_POLL_S = 0.05, 1.0


def identity(pid: int) -> dict[str, Any] | None:
    """Names a process beyond reuse of its number: boot, pid, start time. None when it is gone or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    if fields[0] in (b"Z", b"X"):
        return None
    return {"pid": pid, "started": int(fields[19]), "boot": boot}


def is_alive(who: dict[str, Any]) -> bool:
    return identity(who["pid"]) == who


def send(who: dict[str, Any], number: int) -> None:
    """Signals exactly this process, if it is still there."""
    try:
        handle = os.pidfd_open(who["pid"])
    except OSError:
        return
    try:
        # The handle keeps naming the process that had the number when it was opened.
        if is_alive(who):
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return
    finally:
        os.close(handle)


def read(path: Path) -> dict[str, Any] | None:
    """A JSON file that is only ever replaced as a whole; None when it is not there."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return content


def write(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_suffix(".new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def _now() -> float:
    return time.time()  # noqa: TID251 (llmop.clock cannot be imported here)


class Runner:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.job: dict[str, Any] = json.loads((directory / "job.json").read_bytes())
        self.state: dict[str, Any] = {"runner": identity(os.getpid()), "state": "PENDING", "reason": "None"}
        self.child = 0

    def register(self) -> None:
        self.save()

    def save(self, **changes: Any) -> None:
        self.state.update(changes)
        write(self.directory / "state.json", self.state)

    def run(self) -> None:
        if self.wait_for_turn():
            self.start()
            self.keep()

    # Waiting

    def wait_for_turn(self) -> bool:
        """True when the job may start (and is RUNNING for everybody else); False when it was cancelled before."""
        poll = _SHORTEST_POLL_S
        while True:
            with open(self.directory.parent / "schedule.lock", "w", encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                reason = self.obstacle()
                if not reason:
                    now = _now()
                    limit = self.job["timeLimit"]
                    self.save(
                        state="RUNNING", reason="None", startedAt=now, endsAt=now + limit if limit else None
                    )
                    return True
            if reason != self.state["reason"]:
                self.save(reason=reason)
            if wait_for_signal(poll) == signal.SIGTERM:
                self.save(state="CANCELLED", endedAt=_now(), status=0)
                return False
            poll = min(poll * 1.5, _LONGEST_POLL_S)

    def obstacle(self) -> str:
        """Slurm's word for why the job cannot start now; "" when it can."""
        running = 0
        for path in self.directory.parent.iterdir():
            if path == self.directory or not path.name.isdecimal():
                continue
            state, job = read(path / "state.json"), read(path / "job.json")
            if state is None or job is None or state["state"] not in LIVE or not is_alive(state["runner"]):
                continue
            waits = state["state"] == "PENDING"
            if job["name"] == self.job["name"] and (not waits or int(path.name) < int(self.directory.name)):
                return "Dependency"
            running += not waits
        slots = self.job["slots"]
        return "Resources" if slots and running >= slots else ""

    # Running

    def start(self) -> None:
        """Forks the batch process; the child shares nothing but the log with the runner."""
        parent = os.getpid()
        self.child = os.fork()
        if self.child == 0:
            become_batch_process(parent, self.directory, self.job, self.state)
        self.save(batch=identity(self.child))

    def keep(self) -> None:
        """Until the batch process is gone, with all that it started."""
        limit = self.job["timeLimit"]
        end = time.monotonic() + limit if limit else None
        warn = end - self.job["signalBefore"] if end is not None and self.job["signalBefore"] else None
        kill = None
        while (status := self.reap()) is None:
            due = [moment for moment in (warn, end, kill) if moment is not None]
            left = max(0.0, min(due) - time.monotonic()) if due else None
            got = wait_for_signal(left)
            now = time.monotonic()
            if warn is not None and now >= warn:
                warn = None
                os.kill(self.child, signal.SIGUSR1)
            if got == signal.SIGTERM and kill is None:
                kill, end, warn = now + self.job["killWait"], None, None
                self.stop("CANCELLED")
            elif end is not None and now >= end:
                kill, end, warn = now + self.job["killWait"], None, None
                self.stop("TIMEOUT")
            elif kill is not None and now >= kill:
                os.kill(self.child, signal.SIGKILL)
                kill = now + 1
        kill_descendants()
        final = self.state.get("final") or ("COMPLETED" if status == 0 else "FAILED")
        reasons = {"FAILED": "NonZeroExitCode", "TIMEOUT": "TimeLimit"}
        if status >> 8 == LAUNCH_FAILURE and (self.directory / "launch-failure").exists():
            reasons["FAILED"], status = "JobLaunchFailure", LAUNCH_FAILURE
        self.save(state=final, reason=reasons.get(final, "None"), endedAt=_now(), status=status)

    def stop(self, final: str) -> None:
        self.save(state="COMPLETING", final=final)
        os.kill(self.child, signal.SIGCONT)
        os.kill(self.child, signal.SIGTERM)

    def reap(self) -> int | None:
        """Collects dead children; the wait status of the batch process when that is among them."""
        status = None
        try:
            while True:
                pid, raw = os.waitpid(-1, os.WNOHANG)
                if pid == self.child:
                    status = raw
                elif pid == 0:
                    return status
        except ChildProcessError:
            return status


def wait_for_signal(seconds: float | None) -> int | None:
    """The next of the handled signals, or None after so many seconds."""
    if seconds is None:
        return signal.sigwaitinfo(_HANDLED).si_signo
    got = signal.sigtimedwait(_HANDLED, seconds)
    return None if got is None else got.si_signo


def become_batch_process(
    parent: int, directory: Path, job: dict[str, Any], state: dict[str, Any]
) -> NoReturn:
    """In the child, between fork and exec; never returns."""
    try:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(LAUNCH_FAILURE)
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        try:
            os.chdir(job["directory"])
            log = os.open("job.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError:
            (directory / "launch-failure").touch()
            os._exit(LAUNCH_FAILURE)
        os.dup2(log, 1)
        os.dup2(log, 2)
        environment = {
            **job["environment"],
            "SLURM_JOB_ID": directory.name,
            "SLURM_JOBID": directory.name,
            "SLURM_JOB_NAME": job["name"],
            "SLURM_SUBMIT_DIR": job["directory"],
            "SLURMD_NODENAME": node_name(),
            "SLURM_JOB_NODELIST": node_name(),
        }
        if state["endsAt"]:
            environment["SLURM_JOB_END_TIME"] = str(int(state["endsAt"]))
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):  # Python had its own ideas
            signal.signal(number, signal.SIG_DFL)
        os.execvpe("bash", ["bash", str(directory / "script")], environment)  # noqa: S606
    except BaseException:  # noqa: BLE001 - a child that ran on as a second runner would be worse than anything
        os._exit(LAUNCH_FAILURE)


def node_name() -> str:
    return socket.gethostname().partition(".")[0]


def kill_descendants() -> None:
    """Kills all that is left below the runner. As a subreaper it inherits what its descendants leave behind."""
    while living := descendants():
        for pid in living:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        wait_for_signal(_SHORTEST_POLL_S)


def descendants() -> list[int]:
    """All living processes below this one."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            try:
                fields = Path(f"/proc/{entry.name}/stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue
            if fields[0] not in (b"Z", b"X"):
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, parents = [], [os.getpid()]
    while parents:
        below = children.get(parents.pop(), [])
        found += below
        parents += below
    return found


def prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def main(argv: list[str]) -> int:
    directory = Path(argv[1])
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    ready, registered = os.pipe()
    if os.fork() != 0:
        os.close(registered)
        return 0 if os.read(ready, 1) == b"1" else 1
    os.setsid()
    os.chdir("/")
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    runner = Runner(directory)
    runner.register()
    os.write(registered, b"1")
    os.close(registered)
    os.close(ready)
    runner.run()
    return 0


if __name__ == "__main__":
    try:
        code = main(sys.argv)
    except (
        OSError
    ) as problem:  # a full disk, say: whoever submitted sees the code, the record its dead runner
        code = problem.errno or errno.EIO
    os._exit(code)
