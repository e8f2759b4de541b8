"""Keeps one daemon of a rig and everything that daemon ever started, so that stopping leaves nothing behind.

Run as a program: ``python -I -S keeper.py '<json>'``. A keeper is the reaper of its descendants (prctl(2),
PR_SET_CHILD_SUBREAPER): a job process that left its session, dropped its environment and lost its parent still
becomes the keeper's child, where nothing but a kill -9 of the keeper itself can hide it.

A keeper ends when its last descendant ended. On SIGTERM, or when the pipe on its standard input closes (the test
run that owns the rig died, however it died), it kills all of them first.
"""

from __future__ import annotations

import ctypes
import json
import os
import pathlib
import select
import signal
import subprocess
import sys

PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36


def children_of(pid: int) -> list[int]:
    """The children of every thread of a process; empty when it is gone."""
    found: list[int] = []
    try:
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            found += [int(word) for word in (task / "children").read_text().split()]
    except OSError:
        return found
    return found


def descendants_of(pid: int) -> list[int]:
    """All descendants, parents before children."""
    found: list[int] = []
    queue = children_of(pid)
    while queue:
        child = queue.pop(0)
        found.append(child)
        queue += children_of(child)
    return found


def _kill_descendants() -> None:
    # Stopped first, so that none can fork while the list is walked; a second look finds what was forked before.
    for signum in (signal.SIGSTOP, signal.SIGSTOP, signal.SIGKILL):
        for pid in descendants_of(os.getpid()):
            try:
                os.kill(pid, signum)
            except ProcessLookupError:
                continue


def _reap() -> bool:
    """Collects ended children; false when none is left."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def main(order: dict[str, object]) -> None:
    """Shape of the order: {"argv": [...], "env": {...}, "log": path, "pid_file": path, "user": name?, "lifeline": bool}."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_CHILD_SUBREAPER) failed: {os.strerror(ctypes.get_errno())}")
    libc.prctl(PR_SET_NAME, b"rig-keeper", 0, 0, 0)
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    stop = False

    def on_stop(_signum: int, _frame: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, on_stop)
    signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)

    account: dict[str, object] = {}
    if order.get("user"):
        import pwd

        entry = pwd.getpwnam(str(order["user"]))
        account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    with open(str(order["log"]), "ab") as log:
        daemon = subprocess.Popen(
            order["argv"],
            env=order["env"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
            **account,  # type: ignore[call-overload]
        )
    partial = pathlib.Path(f"{order['pid_file']}.new")
    partial.write_text(str(daemon.pid))
    partial.rename(str(order["pid_file"]))

    watched = [wake_read, 0] if order.get("lifeline") else [wake_read]
    while _reap():
        ready, _, _ = select.select(watched, [], [], 0.05 if stop else None)
        if wake_read in ready:
            os.read(wake_read, 4096)
        if 0 in ready:
            stop, watched = True, [wake_read]
        if stop:
            _kill_descendants()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
