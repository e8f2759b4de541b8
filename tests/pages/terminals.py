"""The terminals of somebody who does what a page says."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.pages.transcript import File, Step, missing, read
from tests.rigs.processes import as_account, need_account

COMMAND_S = 120.0
ENDED = "-- ended with "


class Terminals:
    """`home` is theirs alone; `folder` is where the first terminal begins. `words` are the page's words that are others here, such as
    paths and ports; `account` is whose terminals they are ("" = ours).
    """

    def __init__(
        self,
        home: Path,
        folder: Path,
        *,
        environment: Mapping[str, str],
        words: Mapping[str, str],
        account: str = "",
    ) -> None:
        self.home = home
        self.words = words
        self.options: dict[str, Any] = {
            "env": {**environment, "HOME": str(home), "PS1": "", "COLUMNS": "200"},
            "start_new_session": True,
            "umask": 0o022 if account else -1,  # -1: ours
        }
        self._account = need_account(account) if account else None
        self.others: list[subprocess.Popen[bytes]] = []
        self.first = subprocess.Popen(
            self._theirs(["bash", "--noprofile", "--norc"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            **self.options,
        )

    def follow(self, page: Path) -> None:
        """Does all that the page asks for, and fails where something else happens than it says."""
        for part in read(page.read_text()):
            if isinstance(part, File):
                self.write(part)
            else:
                self.do(part, page.name)

    def do(self, step: Step, page: str) -> None:
        place = f"{page}:{step.line}: {step.command}"
        command = self._here(step.command)
        shown = tuple(self._here(line) for line in step.shown)
        if step.way == "background":
            # Programs print the home directory where people write ~.
            self._start(place, command, tuple(line.replace("~/", f"{self.home}/") for line in shown))
            return
        if step.way == "interrupt":
            self._interrupt()
        started = time.monotonic()
        code, printed = self._run(command)
        print(f"$ {command}  # {time.monotonic() - started:.1f} s\n{printed}", end="")
        assert code == step.exit_code, f"{place}\nended with {code}:\n{printed}"
        assert not (lost := missing(shown, printed)), f"{place}\ndid not print {lost!r}:\n{printed}"

    def write(self, file: File) -> None:
        code, printed = self._run(f"cat > {file.name} <<'END-OF-FILE'\n{self._here(file.text)}END-OF-FILE")
        assert code == 0, printed

    def _theirs(self, argv: list[str]) -> list[str]:
        return argv if self._account is None else as_account(self._account, argv)

    def _here(self, text: str) -> str:
        for word, other in self.words.items():
            text = text.replace(word, other)
        return text

    def _run(self, command: str) -> tuple[int, str]:
        assert self.first.stdin is not None and self.first.stdout is not None
        # What reads its standard input, as srun does, would read the next command.
        self.first.stdin.write(f"{{ {command}\n}} < /dev/null\nprintf '\\n{ENDED}%d\\n' $?\n")
        self.first.stdin.flush()
        watchdog = threading.Timer(COMMAND_S, os.killpg, (self.first.pid, signal.SIGKILL))
        watchdog.start()
        printed = ""
        try:
            for line in self.first.stdout:
                if line.startswith(ENDED):
                    return int(line.removeprefix(ENDED)), printed.removesuffix("\n")
                printed += line
        finally:
            watchdog.cancel()
        raise AssertionError(f"{command} did not end within {COMMAND_S:.0f} s:\n{printed}")

    def _start(self, place: str, command: str, shown: tuple[str, ...]) -> None:
        """In a terminal of its own, until it has printed what is shown."""
        output = self.home / f"terminal-{len(self.others) + 2}.log"
        with output.open("w") as log:
            other = subprocess.Popen(
                self._theirs(["bash", "-c", f"exec {command}"]),
                stdout=log,
                stderr=log,
                cwd=self.home,
                **self.options,
            )
        self.others.append(other)
        deadline = time.monotonic() + COMMAND_S
        while lost := missing(shown, output.read_text()):
            printed = output.read_text()
            assert other.poll() is None, f"{place} ended:\n{printed}"
            assert time.monotonic() < deadline, f"{place}: no {lost!r}:\n{printed}"
            time.sleep(0.05)

    def _interrupt(self) -> None:
        """What Ctrl-C does: SIGINT to everything in the foreground of a terminal."""
        for other in reversed(self.others):
            os.killpg(other.pid, signal.SIGINT)
            assert other.wait(COMMAND_S) == 0, (
                f"terminal {self.others.index(other) + 2} ended with {other.returncode}"
            )

    def close(self) -> None:
        for process in (*self.others, self.first):
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        for pipe in (self.first.stdin, self.first.stdout):
            if pipe is not None:
                pipe.close()


def processes(home: Path) -> list[str]:
    """Pid and command line of live processes that name `home`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(home) in line:
                found.append(f"{path.parent.name} {line}")
    return found
