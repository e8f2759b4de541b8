"""`llmop up` waits for its controller as long as that has reasons to wait itself."""

import socket
import types
from pathlib import Path

import pytest

from llmop import up
from llmop.domain.errors import NeedsUser
from llmop.gateway import listener
from llmop.gateway.settings import TcpAddress
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


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_free_port_is_kept_for_the_gateway_until_it_listens(host: str, workers: int) -> None:
    with up._with_port(f"{host}:0") as listen:
        port = int(listen.rpartition(":")[2])
        family = socket.AF_INET6 if ":" in host[1:] else socket.AF_INET
        with socket.socket(family) as other, pytest.raises(OSError, match="Address already in use"):
            other.bind((host.strip("[]"), port))
        for _ in range(2):  # the second time is a gateway that was restarted
            for sock in listener.listen(TcpAddress(host=host.strip("[]"), port=port), workers):
                sock.close()
