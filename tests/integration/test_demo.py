"""`make demo` shows the main job, and leaves nothing behind however it ends. It runs with the checkout's own environment."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO = (sys.executable, str(ROOT / "hack" / "demo"))
PATIENCE_S = 120.0
# What the demo prints when it gets there.
MOMENTS = {
    "llmop starts": "Starting llmop",
    "llmop is up": "llmop is up",
    "deployments come up": "$ llmctl apply",
    "they are shown": "$ llmctl get",
    "an answer streams": "/generate_stream",
}


class Demo:
    """A demo whose temporary files all lie in `temporary`, so that what it leaves can be seen."""

    def __init__(self, temporary: Path, *arguments: str) -> None:
        self.temporary = temporary
        self.log = temporary / "output"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*DEMO, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(temporary)},
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)

    def interrupt(self) -> None:
        """Ctrl-C: the terminal sends SIGINT to every process in the foreground, the demo's children included."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> int:
        return self.process.wait(PATIENCE_S)

    def left(self) -> tuple[list[str], list[str]]:
        """Command lines that name our directory, and names in it."""
        names = sorted(path.name for path in self.temporary.iterdir() if path != self.log)
        return [line for _, line in processes(self.temporary)], names


def processes(directory: Path) -> list[tuple[int, str]]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(directory) in line:
                found.append((int(path.parent.name), line))
    return found


@pytest.fixture
def temporary() -> Iterator[Path]:
    # Not pytest's folder: the path of a Unix socket has at most 107 bytes. With a blank: what is printed shall be quoted.
    made = Path(tempfile.mkdtemp(prefix="llmop test-"))
    yield made
    for process, _ in processes(made):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    shutil.rmtree(made, ignore_errors=True)


def test_the_demo_shows_two_models_that_answer_and_leaves_nothing(temporary: Path) -> None:
    demo = Demo(temporary)
    assert demo.end() == 0, demo.output
    for text in (
        "modeldeployment.llmop/simulator ready",
        "modeldeployment.llmop/tiny-llama ready",
        '"completion_tokens"',
        "(20 tokens)",
        "nothing was left behind",
    ):
        assert text in demo.output
    assert demo.left() == ([], [])


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_leaves_no_process_and_no_directory(temporary: Path, moment: str) -> None:
    demo = Demo(temporary)
    demo.wait_for(MOMENTS[moment])
    demo.interrupt()
    assert demo.end() == 130, demo.output
    assert "Traceback" not in demo.output
    assert demo.left() == ([], [])


def test_keep_leaves_it_up_and_the_printed_command_ends_it(temporary: Path) -> None:
    demo = Demo(temporary, "--keep")
    assert demo.end() == 0, demo.output
    tried = re.findall(r"^  (export .*|llmctl .*)$", demo.output.split("It stays up. Try:")[1], re.MULTILINE)
    setting, ending = tried[0], tried[-1]
    asked = _shell(f"{setting}; llmctl get md -o name")
    assert asked.splitlines() == ["modeldeployment.llmop/simulator", "modeldeployment.llmop/tiny-llama"]
    _shell(f"{setting}; {ending}")
    assert demo.left() == ([], [])


def _shell(script: str) -> str:
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout
