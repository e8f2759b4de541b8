"""The pages about batches, tribunals, assistants and the load do what they say, on a laptop."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tests.e2e.installation import simulator
from tests.engines.minilm import embedding_model
from tests.integration.laptop import BIN, ROOT, Laptop
from tests.pages.terminals import Terminals

PAGES = ROOT / "docs" / "howto"


def test_every_command_about_batches(laptop: Laptop) -> None:
    laptop.up("--ephemeral", "--quiet")
    laptop.apply(simulator("simulator"))
    laptop.wait_ready("simulator")
    follow(laptop, PAGES / "run-batches.md")


def test_every_command_about_tribunals(laptop: Laptop) -> None:
    laptop.up("--ephemeral", "--quiet")
    follow(laptop, PAGES / "use-a-tribunal.md")


def test_every_command_about_assistants(laptop: Laptop) -> None:
    laptop.up("--ephemeral", "--quiet")
    follow(laptop, PAGES / "build-a-chatbot.md", {"/models/embeddings.gguf": str(embedding_model())})


def test_every_command_about_following_the_load(laptop: Laptop) -> None:
    laptop.up("--ephemeral", "--quiet")
    follow(laptop, PAGES / "follow-the-load.md")


def follow(laptop: Laptop, page: Path, words: Mapping[str, str] = {}) -> None:  # noqa: B006: nobody changes it
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
    terminals = Terminals(
        laptop.home, folder, environment=environment, words={"manifests/": f"{ROOT}/manifests/", **words}
    )
    try:
        terminals.follow(page)
    finally:
        terminals.close()
    assert 0 == laptop.end()
