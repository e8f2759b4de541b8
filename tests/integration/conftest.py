"""What tests of several parts use."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.laptop import Laptop


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    """Nothing runs on it yet, and nothing of it stays."""
    made = Laptop(tmp_path)
    try:
        yield made
    finally:
        made.clean()
