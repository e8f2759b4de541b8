"""`llmop up` waits for its controller as long as that has reasons to wait itself."""

import types
from pathlib import Path

import pytest

from llmop import up
from llmop.domain.errors import NeedsUser
from llmop.settings import ControllerSettings

LISTEN = "127.0.0.1:1"
CHILD = types.SimpleNamespace(name="controller", has_ended=lambda: False, last_words=lambda: "")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ControllerSettings:
    made = ControllerSettings(state_dir=tmp_path)
    socket = Path(made.socket.removeprefix("unix://"))
    socket.parent.mkdir(exist_ok=True)
    socket.touch()
    monkeypatch.setattr(up, "START_S", 0.1)
    monkeypatch.setattr(up, "_has_table", lambda _listen: True)
    return made


def test_a_controller_that_waits_itself_is_waited_for_and_its_last_words_are_told(
    settings: ControllerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(up.click, "echo", lambda text, err: said.append(text))
    monkeypatch.setattr(up, "_answers", lambda _path: bool(said))
    child = types.SimpleNamespace(**{**vars(CHILD), "last_words": lambda: ":\nwaiting for a sign of life"})
    up._wait(settings, LISTEN, [child])  # type: ignore[list-item]
    assert said[0].endswith("it is waited for as long as it runs:\nwaiting for a sign of life")


def test_a_controller_that_ends_after_it_has_waited_is_an_error(
    settings: ControllerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(up.click, "echo", lambda text, err: said.append(text))
    monkeypatch.setattr(up, "_answers", lambda _path: False)
    child = types.SimpleNamespace(**{**vars(CHILD), "has_ended": lambda: bool(said)})
    with pytest.raises(NeedsUser, match="the controller did not start"):
        up._wait(settings, LISTEN, [child])  # type: ignore[list-item]
