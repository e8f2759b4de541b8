"""How `hack/test` divides the tests between two processes (tests/conftest.py), and that these do not fall over each other."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.rigs.postgres import PREFIX, remove_debris

CONFTEST = Path(__file__).parents[1] / "conftest.py"
QUICK = "def test_one(): pass\n"
DIES_ONCE = """
import os, pathlib

def test_it_dies():
    try:
        pathlib.Path(__file__).with_suffix(".died").touch(exist_ok=False)
    except FileExistsError:
        return
    os._exit(1)

def test_afterwards(): pass
"""


def test_a_process_that_dies_holds_up_no_test(tmp_path: Path) -> None:
    """It dies in its second group, when nothing is left to be handed out."""
    folder = tmp_path / "tests" / "unit"
    folder.mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "tests" / "conftest.py").write_text(CONFTEST.read_text())
    for name, text in (("a", QUICK), ("b", QUICK), ("c", DIES_ONCE), ("d", QUICK)):
        (folder / f"test_{name}.py").write_text(text)
    words = "-q -p no:cacheprovider -n 2 --dist loadscope --no-loadscope-reorder tests"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    told = subprocess.run(
        [sys.executable, "-m", "pytest", *words.split()],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    ).stdout

    assert "1 failed, 5 passed" in told, told
    assert "crashed while running 'tests/unit/test_c.py::test_it_dies'" in told


def test_a_server_that_the_other_process_makes_right_now_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is there before what stands in it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"{PREFIX}new"
    folder.mkdir()
    (folder / "owner.json").touch()

    remove_debris()
    assert folder.exists()
