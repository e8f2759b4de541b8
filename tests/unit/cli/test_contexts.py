"""The context file."""

import stat
from pathlib import Path

import pytest

from llmop.cli import contexts
from llmop.cli.errors import ConfigError

HERE = contexts.Context(
    name="here", controller="unix:///run/a.sock", gateway="http://127.0.0.1:8080", key_file="/keys/a"
)


def test_it_lies_in_the_xdg_folder() -> None:
    assert Path("/x/llmop/contexts.yaml") == contexts.default_path({"XDG_CONFIG_HOME": "/x", "HOME": "/h"})
    assert Path("/h/.config/llmop/contexts.yaml") == contexts.default_path({"HOME": "/h"})
    assert Path("/h/.config/llmop/contexts.yaml") == contexts.default_path(
        {"XDG_CONFIG_HOME": "x", "HOME": "/h"}
    )


def test_what_is_saved_is_read_back_and_becomes_current(tmp_path: Path) -> None:
    path = tmp_path / "llmop" / "contexts.yaml"
    contexts.save(path, HERE)
    assert contexts.Contexts(current="here", contexts=(HERE,)) == contexts.load(path)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_other_contexts_stay(tmp_path: Path) -> None:
    path = tmp_path / "contexts.yaml"
    contexts.save(path, HERE)
    contexts.save(path, contexts.Context(name="away", controller="unix:///b"))
    contexts.save(path, contexts.Context(name="here", controller="unix:///c"))
    known = contexts.load(path)
    assert ("here", {"here": "unix:///c", "away": "unix:///b"}) == (
        known.current,
        {each.name: each.controller for each in known.contexts},
    )


def test_no_file_is_no_context(tmp_path: Path) -> None:
    assert contexts.Contexts() == contexts.load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1", "not YAML"),
        ("- a", "must hold currentContext"),
        ("contexts: 5", "must hold currentContext"),
        ("contexts: [{name: a}]", r"contexts\[0\]\.controller"),
        ("contexts: [{name: 5, controller: x}]", r"contexts\[0\]\.name"),
        ("contexts: [x]", r"contexts\[0\]"),
    ],
)
def test_a_file_that_is_none_is_refused_with_the_field(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "contexts.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected) as raised:
        contexts.load(path)
    assert str(path) in str(raised.value)
