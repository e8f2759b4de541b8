"""The page about batches does what it says, on a laptop with one model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.installation import simulator
from tests.integration.test_local_installation import BIN, ROOT, Laptop
from tests.pages.terminals import Terminals

PAGE = ROOT / "docs" / "howto" / "run-batches.md"


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    made = Laptop(tmp_path)
    yield made
    made.clean()


def test_every_command_of_the_page(laptop: Laptop) -> None:
    laptop.up("--ephemeral", "--quiet")
    laptop.apply(simulator())
    laptop.wait_ready("sim")
    port, _ = laptop.gateway
    folder = laptop.home / "work"
    folder.mkdir()
    environment = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "LC_ALL": "C.UTF-8",
        "GATEWAY": f"http://127.0.0.1:{port}",
        "KEY_FILE": str(laptop.state / "key"),
        "no_proxy": "127.0.0.1",
    }
    terminals = Terminals(laptop.home, folder, environment=environment, words={})
    try:
        terminals.follow(PAGE)
    finally:
        terminals.close()
    assert 0 == laptop.end()
