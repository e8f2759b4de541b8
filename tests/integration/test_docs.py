"""The pages do what they say: the tutorial's commands run, one after the other, against the real thing; links and manifests are good."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pages.terminals import Terminals, processes
from tests.rigs.ports import free_port

from llmop.domain import errors
from llmop.manifest import admit, load

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs" / "tutorial" / "laptop.md"
MEASURING = ROOT / "docs" / "howto" / "measure-models.md"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
WRONG_ON_PURPOSE = "name: Bad_Name"
BIN = ROOT / ".venv" / "bin"


@pytest.fixture
def terminals() -> Iterator[Terminals]:
    # Not pytest's folder: the path of a Unix socket has at most 107 bytes.
    home = Path(tempfile.mkdtemp(prefix="llmop-docs-"))
    port = str(free_port())
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"LLMOP_CONTEXT", "XDG_CONFIG_HOME", "XDG_DATA_HOME"}
        and not name.lower().endswith("_proxy")
    }
    made = Terminals(
        home,
        ROOT,
        environment={**environment, "PATH": f"{BIN}:{os.environ['PATH']}"},
        # 8080 may be taken on this machine.
        words={"llmop up --quiet": "llmop up --quiet --listen 127.0.0.1:8080", "8080": port},
    )
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
    terminals.follow(TUTORIAL)
    print(f"the tutorial took {time.monotonic() - started:.0f} s")
    terminals.close()
    assert [] == processes(terminals.home)
    left = {path.name for path in terminals.home.iterdir()}
    assert set() == left - {"terminal-2.log", ".local", ".config", ".cache"}
    assert [] == [*terminals.home.glob(".local/share/*"), *terminals.home.glob(".config/*")]


def test_every_command_of_the_page_on_measuring_does_what_it_shows(terminals: Terminals) -> None:
    terminals.words = {**terminals.words, "3000": str(free_port())}
    terminals.first.stdin.write(f"cd {terminals.home}\n")  # type: ignore[union-attr]  # it writes files
    terminals.follow(MEASURING)


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
