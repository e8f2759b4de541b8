"""Every file of tests/data/manifests/hostile is refused, with exactly the text beside it, or stored exactly as it says.

A new file gets its `.expected` from `outcome` below: run the test, read what it prints, and write that down if it is right.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmop.domain import errors
from llmop.manifest import admit, load

FOLDER = Path(__file__).parents[2] / "data" / "manifests" / "hostile"
FILES = sorted(path for path in FOLDER.iterdir() if path.suffix != ".expected")


def outcome(path: Path, parser: Any = load.FASTEST) -> str:
    """What a user sees: one line for each problem, or the specs as they would be stored."""
    try:
        documents = load.load(load.decode(path.read_bytes(), path.name), path.name, parser=parser)
    except load.ManifestError as error:
        return f"{error}\n"
    lines = []
    for document in documents:
        try:
            resource = admit.admit(document.data, namespace="")
        except errors.Invalid as invalid:
            lines.append(str(document.explain(invalid)))
        else:
            lines.append(f"accepted: {json.dumps(resource.spec)}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_has_the_outcome_that_is_written_beside_it(path: Path) -> None:
    expected = path.with_suffix(".expected").read_text(encoding="utf-8")

    assert expected == outcome(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_parser_in_python_finds_the_same(path: Path) -> None:
    """PyYAML has two; they may differ in the words of a syntax error."""
    expected, found = outcome(path), outcome(path, yaml.SafeLoader)

    if "not YAML: " not in expected:
        assert expected == found
    else:
        assert not found.startswith("accepted: ")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_problem_names_file_line_and_column_of_something_that_is_there(path: Path) -> None:
    lines = path.read_bytes().decode("utf-8", "replace").split("\n")
    for problem in outcome(path).splitlines():
        if problem.startswith("accepted: "):
            continue
        name, line, column, message = problem.split(":", 3)
        assert name == path.name
        assert 1 <= int(line) <= len(lines)
        assert 1 <= int(column) <= len(lines[int(line) - 1]) + 1
        assert message.strip()
