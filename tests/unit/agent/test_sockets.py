"""What the agent reads from /proc, checked with real sockets and processes of this machine."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from llmop.agent import agent
from llmop.agent.agent import (
    ESTABLISHED,
    FOREIGN,
    LISTEN,
    NOBODY,
    OURS,
    Agent,
    End,
    EngineEnded,
    Family,
    Ports,
    PortTaken,
    candidates,
    descendants,
    endpoint,
    hold,
    is_below,
    tcp_table,
)

ONE_CHILD = """
import socket, sys
server = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
server.bind((sys.argv[1], 0))
server.listen()
print(server.getsockname()[1], flush=True)
client = socket.create_connection(server.getsockname()[:2]) if 'inside' in sys.argv else None
accepted = server.accept() if client else None
print('up', flush=True)
sys.stdin.read()
"""


class Child:
    """A process below this one that listens; with `inside` it is connected to itself."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", ONE_CHILD, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        assert "up\n" == self.process.stdout.readline()

    def close(self) -> None:
        self.process.communicate()


@pytest.fixture(params=["127.0.0.1", "0.0.0.0", "::1"])
def host(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def child(host: str) -> Iterator[Child]:
    child = Child(host)
    yield child
    child.close()


@pytest.mark.parametrize(
    ("field", "address"),
    [
        ("0100007F:1F90", ("127.0.0.1", 8080)),
        ("00000000:0016", ("0.0.0.0", 22)),
        ("00000000000000000000000001000000:0050", ("::1", 80)),
        ("0000000000000000FFFF00000100007F:0050", ("127.0.0.1", 80)),
    ],
)
def test_the_kernels_addresses_are_read(field: str, address: tuple[str, int]) -> None:
    assert address == endpoint(field)


def test_listeners_alone_are_those_of_the_whole_table() -> None:
    child = Child("127.0.0.1", "inside")
    ports = {entry.local[1]: entry.state for entry in tcp_table(listeners_only=True)}
    assert LISTEN == ports[child.port]
    assert {LISTEN} == set(ports.values())
    of_child = {entry.state for entry in tcp_table() if child.port == entry.local[1]}
    assert {LISTEN, ESTABLISHED} == of_child
    child.close()


def test_a_listener_below_us_is_ours(child: Child, host: str) -> None:
    assert OURS == Family(os.getpid()).listener(tcp_table(), child.port, [host])
    assert child.process.pid in descendants(os.getpid())


def test_a_listener_elsewhere_is_foreign(child: Child, host: str) -> None:
    assert FOREIGN == Family(child.process.pid).listener(tcp_table(), child.port, [host])


def test_a_known_listener_is_proven_without_a_look_at_all_processes(
    child: Child, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = Family(os.getpid())
    assert OURS == family.listener(tcp_table(), child.port, [host])
    monkeypatch.setattr(agent, "descendants", lambda root: [])
    assert OURS == family.listener(tcp_table(), child.port, [host])


def test_a_listener_that_another_one_has_followed_is_found() -> None:
    family = Family(os.getpid())
    for _ in range(2):
        child = Child("127.0.0.1")
        assert OURS == family.listener(tcp_table(), child.port, ["127.0.0.1"])
        child.close()
        assert NOBODY == family.listener(tcp_table(), child.port, ["127.0.0.1"])


def test_a_listener_that_is_no_longer_below_us_is_foreign() -> None:
    child = Child("127.0.0.1")
    family = Family(os.getpid())
    assert OURS == family.listener(tcp_table(), child.port, ["127.0.0.1"])
    family.root = child.process.pid
    assert FOREIGN == family.listener(tcp_table(), child.port, ["127.0.0.1"])
    child.close()


def test_a_process_is_below_its_parents_and_not_below_others() -> None:
    child = Child("127.0.0.1")
    assert is_below(child.process.pid, os.getpid())
    assert is_below(child.process.pid, os.getppid())
    assert not is_below(os.getpid(), child.process.pid)
    child.close()
    assert not is_below(child.process.pid, os.getpid())


def test_an_address_that_clients_do_not_reach_does_not_count() -> None:
    child = Child("127.0.0.2")
    assert NOBODY == Family(os.getpid()).listener(tcp_table(), child.port, ["127.0.0.1"])
    child.close()


def test_a_port_without_a_listener_is_nobodys() -> None:
    with hold("127.0.0.1", 0) as held:
        assert NOBODY == Family(os.getpid()).listener(tcp_table(), held.getsockname()[1], ["127.0.0.1"])


def test_connections_from_outside_are_counted_and_those_from_inside_are_not() -> None:
    child = Child("127.0.0.1", "inside")
    pid = child.process.pid
    with socket.create_connection(("127.0.0.1", child.port)):
        # Seen from the child, this process is outside; seen from this process, both ends belong to us.
        assert 1 == Family(pid).outside_connections(tcp_table(), child.port)
        assert 0 == Family(os.getpid()).outside_connections(tcp_table(), child.port)
    child.close()
    assert 0 == Family(pid).outside_connections(tcp_table(), child.port)


@pytest.mark.parametrize("asks", [Agent.is_listening, Agent.problem])
def test_a_socket_that_its_dying_engine_has_let_go_is_no_strangers(asks: Callable[[Any], object]) -> None:
    """It still stands in the table of sockets, and is nobody's."""

    def rest(_: float) -> None:
        raise EngineEnded("the engine ended with status 3")

    dying = SimpleNamespace(port=1, prove=lambda _: FOREIGN, rest=rest)
    dying.listens = lambda: Agent.listens(dying)  # type: ignore[arg-type]
    with pytest.raises(EngineEnded, match="status 3"):
        asks(dying)

    dying.rest = lambda _: None  # it lives, and somebody else listens
    with pytest.raises((EngineEnded, PortTaken), match="somebody else listens on port 1"):
        asks(dying)


def test_a_held_port_refuses_clients_and_cannot_be_bound_by_anybody() -> None:
    with hold("0.0.0.0", 0) as held:
        port = held.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        assert_closed(port)


def assert_closed(port: int, *, but: int | None = None) -> None:
    """Nobody can listen on the port, whatever options they set. The kernel lets the account of an engine with SO_REUSEPORT (`but`) do
    so with that option; tests/e2e tries it as another account."""
    for option in {0, socket.SO_REUSEADDR, socket.SO_REUSEPORT} - {but}:
        for address in ("127.0.0.1", "0.0.0.0"):
            with socket.socket() as stranger:
                if option:
                    stranger.setsockopt(socket.SOL_SOCKET, option, 1)
                with pytest.raises(OSError) as taken:
                    stranger.bind((address, port))
                    stranger.listen()
                assert errno.EADDRINUSE == taken.value.errno


def test_ports_come_from_outside_the_kernels_range() -> None:
    free = set(candidates((32768, 60999)))
    assert {10000, 32767, 61000, 65535} <= free
    assert not free & set(range(32768, 61000))
    assert [0] == candidates((1024, 65535))


def test_every_name_gets_a_port_of_its_own_that_is_held() -> None:
    ports = Ports(["http", "prometheus", "master"], "127.0.0.1")
    ports.choose()
    first = dict(ports.numbers)
    assert ["http", "prometheus", "master"] == list(first)
    assert 3 == len(set(first.values()))
    for port in first.values():
        with pytest.raises(OSError):
            hold("127.0.0.1", port)

    ports.choose()
    assert not set(first.values()) & set(ports.numbers.values())
    ports.lend()
    with hold("127.0.0.1", ports.numbers["prometheus"]):
        assert not ports.hold_again()
    assert ports.hold_again()
    ports.release()


@pytest.fixture
def opened() -> Iterator[Callable[[str], Ports]]:
    """Ports on a host that wait for an engine to bind them."""
    made: list[Ports] = []

    def open_at(host: str) -> Ports:
        ports = Ports(["http"], host)
        made.append(ports)
        ports.choose()
        ports.lend()
        return ports

    yield open_at
    for ports in made:
        for holder in [*ports.held.values(), *ports.closed]:
            holder.close()


@pytest.mark.parametrize("option", [socket.SO_REUSEADDR, socket.SO_REUSEPORT])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_was_told_is_nobody_elses_while_the_engine_runs_and_after_it(
    opened: Callable[[str], Ports], host: str, option: int
) -> None:
    ports = opened(host)
    port = ports.numbers["http"]
    but = option if option == socket.SO_REUSEPORT else None
    with socket.socket() as engine:
        engine.setsockopt(socket.SOL_SOCKET, option, 1)
        engine.bind((host, port))
        engine.listen()
        ports.shut()
        with socket.create_connection(("127.0.0.1", port)):
            assert_closed(port, but=but)
    assert_closed(port, but=but)
    ports.choose()
    assert port != ports.numbers["http"]
    assert_closed(port, but=but)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_who_bound_a_lent_port_early_cannot_listen_there_later(opened: Callable[[str], Ports]) -> None:
    ports = opened("127.0.0.1")
    with socket.socket() as stranger, socket.socket() as engine:
        for each in (stranger, engine):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", ports.numbers["http"]))
        engine.listen()
        ports.shut()
        engine.close()
        with pytest.raises(OSError) as taken:
            stranger.listen()
    assert errno.EADDRINUSE == taken.value.errno


def test_a_port_that_is_in_use_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with hold("127.0.0.1", 0) as taken, hold("127.0.0.1", 0) as other:
        free = other.getsockname()[1]
        other.close()
        monkeypatch.setattr(agent, "candidates", lambda _: [taken.getsockname()[1], free])
        ports = Ports(["http"], "127.0.0.1")
        ports.choose()
        assert {"http": free} == ports.numbers
        ports.release()


def test_a_node_without_a_free_port_is_worth_another_try_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with hold("127.0.0.1", 0) as taken:
        monkeypatch.setattr(agent, "candidates", lambda _: [taken.getsockname()[1]])
        with pytest.raises(End) as raised:
            Ports(["http"], "127.0.0.1").choose()
    assert ("Temporary", 75) == (raised.value.reason, raised.value.code)
