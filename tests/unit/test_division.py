"""How `hack/test` divides the tests among processes (tests/conftest.py), and that these do not fall over each other."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.rigs.postgres import PREFIX, remove_debris

TESTS = Path(__file__).parents[1]
CONFTEST = TESTS / "conftest.py"
FORKS = {"fork", "forkpty"}
STARTS = {
    "run",
    "call",
    "check_call",
    "check_output",
    "Popen",
    "create_subprocess_exec",
    "create_subprocess_shell",
}
PROGRAMS = {"rigs/keeper.py", "rigs/interrupted.py"}  # started anew by tests, without gRPC
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
SAYS_WHERE = """
import os, pathlib

def test_one():
    with pathlib.Path(os.environ["SAID"]).open("a") as said:
        print(os.environ["PYTEST_XDIST_WORKER"], pathlib.Path(__file__).stem, file=said)
"""


def divided(top: Path, files: dict[str, str], **environment: str) -> str:
    """What pytest says of these tests in two processes under our division."""
    (top / "pytest.ini").write_text("[pytest]\n")
    for name, text in {"conftest.py": CONFTEST.read_text(), **files}.items():
        path = top / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    words = (
        "-q -p no:cacheprovider --import-mode=importlib -n 2 --dist loadscope --no-loadscope-reorder tests"
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *words.split()],
        cwd=top,
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    ).stdout


def test_a_process_that_dies_holds_up_no_test(tmp_path: Path) -> None:
    """It dies in its second group, when nothing is left to be handed out."""
    files = {"a": QUICK, "b": QUICK, "c": DIES_ONCE, "d": QUICK}
    told = divided(tmp_path, {f"unit/test_{name}.py": text for name, text in files.items()})

    assert "1 failed, 5 passed" in told, told
    assert "crashed while running 'tests/unit/test_c.py::test_it_dies'" in told


def test_what_must_not_meet_is_in_one_process(tmp_path: Path) -> None:
    apart = ("e2e/test_a.py", "e2e/test_b.py", "e2e/test_c.py", "contract/test_store_bindfs.py")
    files = (*apart, *(f"unit/test_{number}.py" for number in range(8)))
    said = tmp_path / "said"
    told = divided(tmp_path, dict.fromkeys(files, SAYS_WHERE), SAID=str(said))

    assert "12 passed" in told, told
    ran = {test: process for process, test in map(str.split, said.read_text().splitlines())}
    assert 1 == len({ran[Path(name).stem] for name in apart}), ran
    assert 2 == len({*ran.values()}), ran


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


def test_no_test_forks_in_full() -> None:
    """gRPC's threads may be in the process: the child crashes before its program begins (see `tests.rigs.processes.as_account`)."""
    found = []
    for path in sorted(TESTS.rglob("*.py")):
        place = path.relative_to(TESTS).as_posix()
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        found += [f"{place}:{call.lineno}" for call in calls if place not in PROGRAMS and _forks(call)]
    assert [] == found


def _forks(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    named = {keyword.arg for keyword in call.keywords}
    first = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
    return (
        name in FORKS
        or (name in STARTS and bool(named & {"preexec_fn", "user", "group", "extra_groups"}))
        or (name == "get_context" and first == "fork")
    )
