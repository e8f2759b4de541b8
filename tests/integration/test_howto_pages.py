"""The pages for every day do what they say, on a laptop with the model `chat`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.installation import simulator
from tests.integration.laptop import ROOT, Laptop
from tests.integration.workloads.test_page import follow

PAGES = ROOT / "docs" / "howto"


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    """`chat` is ready, and has an older revision to go back to."""
    made = Laptop(tmp_path)
    try:
        made.up("--ephemeral", "--quiet")
        deployment = simulator("chat")
        made.apply(deployment)
        deployment["spec"]["env"] = {"COLOUR": "blue"}
        made.apply(deployment)
        made.wait_ready("chat")
        yield made
    finally:
        made.clean()


def test_every_command_about_keys(laptop: Laptop) -> None:
    follow(laptop, PAGES / "give-keys-to-users.md")


def test_every_command_for_every_day(laptop: Laptop) -> None:
    follow(laptop, PAGES / "use-llmctl-every-day.md")
