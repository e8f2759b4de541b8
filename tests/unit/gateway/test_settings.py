"""Where a gateway may listen."""

import dataclasses
import json
from pathlib import Path

import pytest

from llmop.domain.errors import NeedsUser
from llmop.gateway.settings import GatewaySettings, SocketPath, TcpAddress, check, from_values, to_values

SETTINGS = GatewaySettings(
    controller="unix:///run/llmop.sock",
    listen="127.0.0.1:8080",
    keys_file=Path("keys"),
    state_dir=Path("state"),
)


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:8080", TcpAddress(host="127.0.0.1", port=8080)),
        ("localhost:0", TcpAddress(host="localhost", port=0)),
        ("[::1]:8080", TcpAddress(host="::1", port=8080)),
        ("unix:/run/x/gateway.sock", SocketPath(path=Path("/run/x/gateway.sock"))),
        ("unix:///run/x/gateway.sock", SocketPath(path=Path("/run/x/gateway.sock"))),
    ],
)
def test_private_listeners_need_nothing_more(listen: str, expected: TcpAddress | SocketPath) -> None:
    assert expected == check(dataclasses.replace(SETTINGS, listen=listen))


@pytest.mark.parametrize("listen", ["0.0.0.0:80", "[::]:80", "10.1.2.3:80", "gateway.example.org:80"])
def test_other_listeners_need_tls_or_a_proxy(listen: str) -> None:
    with pytest.raises(NeedsUser, match="--behind-proxy"):
        check(dataclasses.replace(SETTINGS, listen=listen))
    assert isinstance(check(dataclasses.replace(SETTINGS, listen=listen, behind_proxy=True)), TcpAddress)


@pytest.mark.parametrize(
    "listen", ["", "8080", ":8080", "localhost:", "::1:80", "localhost:http", "a:70000", "unix:x"]
)
def test_bad_addresses_are_named(listen: str) -> None:
    with pytest.raises(NeedsUser, match=f'listen "{listen}"'):
        check(dataclasses.replace(SETTINGS, listen=listen))


def test_half_a_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NeedsUser, match="belong together"):
        check(dataclasses.replace(SETTINGS, tls_cert=tmp_path / "cert"))


def test_a_controller_over_the_network_is_refused() -> None:
    with pytest.raises(NeedsUser, match="Unix socket"):
        check(dataclasses.replace(SETTINGS, controller="dns:///host:1"))


@pytest.mark.parametrize("workers", [0, -1, 65])
def test_the_number_of_workers_is_bounded(workers: int) -> None:
    with pytest.raises(NeedsUser, match=f"workers {workers}: give a number from 1 to 64"):
        check(dataclasses.replace(SETTINGS, workers=workers))


def test_a_worker_process_hears_the_same_settings() -> None:
    settings = dataclasses.replace(
        SETTINGS, workers=2, tls_cert=Path("a"), tls_key=Path("b"), workloads=Path("/w.sock")
    )
    for one in (SETTINGS, settings):
        assert one == from_values(json.loads(json.dumps(to_values(one))))
