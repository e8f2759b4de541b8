"""The tutorial does what it says: its commands run, one after the other, against the real thing.

In the page, ```console blocks hold `$ command` lines and what they print. A comment before a block says more:
`file: NAME` the block is the text of that file; `test: skip` people only; `test: exit N` its last command ends so; `test: background` a second
terminal; `test: interrupt` Ctrl-C there first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmop.domain import errors
from llmop.manifest import admit, load

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs" / "tutorial" / "laptop.md"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
WRONG_ON_PURPOSE = "name: Bad_Name"
BIN = ROOT / ".venv" / "bin"
COMMAND_S = 60.0
ENDED = "-- ended with "
# The name of a replica, a moment, a number: what is another one every time.
VARIES = (
    (re.compile(r"\b(simulator|tiny)-[a-z0-9]{5}\b"), r"\1-NAME"),
    (re.compile(r"\b(\d+[dhms])+\b"), "TIME"),
    (re.compile(r"\b\d+\b"), "N"),
    (re.compile(r"\s+"), " "),
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One command of the page and the lines that are shown below it; `line` is where it stands."""

    line: int
    command: str
    shown: tuple[str, ...] = ()
    exit_code: int = 0
    way: str = ""  # "", background or interrupt


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """A file that the page asks its readers to write."""

    name: str
    text: str


def read(page: str) -> Iterator[Step | File]:
    """What the page asks its readers to do, in order."""
    block = re.compile(
        r"(?:<!-- (?P<mark>.*?) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
    )
    for found in block.finditer(page):
        mark = found["mark"] or ""
        if mark.startswith("file: "):
            yield File(name=mark.removeprefix("file: "), text=found["text"])
        elif found["kind"] == "console" and mark != "test: skip":
            yield from _steps(found["text"], mark, page.count("\n", 0, found.start("text")) + 1)


def _steps(text: str, mark: str, first: int) -> Iterator[Step]:
    way = mark.removeprefix("test: ")
    made: list[Step] = []
    for number, line in enumerate(text.splitlines(), start=first):
        if line.startswith("$ "):
            made.append(Step(line=number, command=line[2:], way=way if not way.startswith("exit") else ""))
        elif line:
            made[-1] = dataclasses.replace(made[-1], shown=(*made[-1].shown, line))
    if way.startswith("exit "):
        made[-1] = dataclasses.replace(made[-1], exit_code=int(way.removeprefix("exit ")))
    yield from made


def plain(line: str) -> str:
    """The line without what varies."""
    for pattern, word in VARIES:
        line = pattern.sub(word, line)
    return line.strip()


def missing(shown: tuple[str, ...], printed: str) -> str:
    """The first shown line that was not printed, in order; "" when all were. `...` stands for anything, also within a line.

    Which of two deployments is ready first nobody can promise: such lines may stand anywhere.
    """
    everything = [plain(line) for line in printed.splitlines()]
    rest = iter(everything)
    for line in shown:
        pattern = re.compile(".*".join(re.escape(part) for part in plain(line).split("...")))
        lines = everything if line.endswith(" ready") else rest
        if line.strip() != "..." and not any(pattern.fullmatch(candidate) for candidate in lines):
            return line
    return ""


class Terminals:
    """The reader's two terminals. `home` is theirs alone."""

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.port = str(port)
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if name not in {"LLMOP_CONTEXT", "XDG_CONFIG_HOME", "XDG_DATA_HOME"}
            and not name.lower().endswith("_proxy")
        } | {"HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}", "PS1": "", "COLUMNS": "200"}
        self.second: subprocess.Popen[str] | None = None
        self.second_log = home / "second.log"
        self.first = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=self.environment,
            start_new_session=True,
        )

    def do(self, step: Step) -> None:
        """Runs one step, and fails where it does something else than the page says."""
        command = step.command.replace("8080", self.port)
        if step.way == "background":
            command += f" --listen 127.0.0.1:{self.port}"  # 8080 may be taken on this machine
        shown = tuple(
            line.replace("8080", self.port).replace("~/", f"{self.home}/")
            if step.way
            else line.replace("8080", self.port)
            for line in step.shown
        )
        if step.way == "background":
            self._start(step, command, shown)
            return
        if step.way == "interrupt":
            assert self._interrupt() == 0
        started = time.monotonic()
        code, printed = self._run(command)
        print(f"$ {command}  # {time.monotonic() - started:.1f} s\n{printed}", end="")
        place = f"{TUTORIAL.name}:{step.line}: {step.command}"
        assert code == step.exit_code, f"{place}\nended with {code}:\n{printed}"
        assert not (lost := missing(shown, printed)), f"{place}\ndid not print {lost!r}:\n{printed}"

    def write(self, file: File) -> None:
        _, folder = self._run("pwd")
        (Path(folder.strip()) / file.name).write_text(file.text)

    def _run(self, command: str) -> tuple[int, str]:
        assert self.first.stdin is not None and self.first.stdout is not None
        self.first.stdin.write(f"{command}\nprintf '\\n{ENDED}%d\\n' $?\n")
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

    def _start(self, step: Step, command: str, shown: tuple[str, ...]) -> None:
        with self.second_log.open("w") as log:
            self.second = subprocess.Popen(
                command, shell=True, executable="/bin/bash", stdout=log, stderr=log, cwd=self.home,
                env=self.environment, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + COMMAND_S
        while lost := missing(shown, self.second_log.read_text()):
            printed = self.second_log.read_text()
            assert self.second.poll() is None, f"line {step.line}: {command} ended:\n{printed}"
            assert time.monotonic() < deadline, f"line {step.line}: no {lost!r}:\n{printed}"
            time.sleep(0.05)

    def _interrupt(self) -> int:
        """What Ctrl-C does: SIGINT to everything in the foreground of the second terminal."""
        assert self.second is not None
        os.killpg(self.second.pid, signal.SIGINT)
        return self.second.wait(COMMAND_S)

    def close(self) -> None:
        for process in (self.second, self.first):
            if process is not None and process.poll() is None:
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
    """Command lines of live processes that name `home`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(home) in line:
                found.append(f"{path.parent.name} {line}")
    return found


@pytest.fixture
def terminals() -> Iterator[Terminals]:
    # Not pytest's folder: the path of a Unix socket has at most 107 bytes.
    home = Path(tempfile.mkdtemp(prefix="llmop-docs-"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    made = Terminals(home, port)
    try:
        yield made
    finally:
        made.close()
        for line in processes(home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)
        shutil.rmtree(home, ignore_errors=True)


def test_every_command_of_the_tutorial_does_what_the_page_shows(terminals: Terminals) -> None:
    """From an installed checkout to clean-up, by a stranger's account; afterwards nothing runs and nothing lies around."""
    started = time.monotonic()
    for part in read(TUTORIAL.read_text()):
        if isinstance(part, File):
            terminals.write(part)
        else:
            terminals.do(part)
    print(f"the tutorial took {time.monotonic() - started:.0f} s")
    terminals.close()
    assert [] == processes(terminals.home)
    left = {path.name for path in terminals.home.iterdir()}
    assert set() == left - {"second.log", ".local", ".config", ".cache"}
    assert [] == [*terminals.home.glob(".local/share/*"), *terminals.home.glob(".config/*")]


def test_every_relative_link_leads_to_a_file() -> None:
    links = [
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in target
    ]
    assert [] == [f"{page}: {target}" for page, target in links if not (page.parent / target).exists()]


def test_every_manifest_of_the_pages_is_one_that_llmop_takes() -> None:
    refused = []
    for page in PAGES:
        for text in re.findall(
            r"^```yaml\n(apiVersion: llmop.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE
        ):
            if WRONG_ON_PURPOSE in text:
                continue
            for document in load.load(text.replace("${HOME}", "/home/me"), page.name):
                try:
                    admit.admit(document.data, namespace="default")
                except errors.Invalid as error:
                    refused.append(str(document.explain(error)))
    assert [] == refused
