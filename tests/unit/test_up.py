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


def test_a_controller_that_waits_for_a_silent_one_on_another_machine_is_waited_for(
    settings: ControllerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "llmop.db.lease").mkdir()
    said: list[str] = []
    monkeypatch.setattr(up.click, "echo", lambda text, err: said.append(text))
    monkeypatch.setattr(up, "_answers", lambda _path: bool(said))
    up._wait(settings, LISTEN, [CHILD])  # type: ignore[list-item]
    assert "another machine" in said[0]


def test_any_other_controller_that_does_not_answer_is_an_error(
    settings: ControllerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "_answers", lambda _path: False)
    with pytest.raises(NeedsUser, match="did not answer in time"):
        up._wait(settings, LISTEN, [CHILD])  # type: ignore[list-item]
