"""`llmop controller`, `llmop up` and `llmop key` as processes: what they refuse, how they end, and where their secrets are."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.installation import simulator
from tests.integration.laptop import Laptop
from tests.rigs.processes import wait_for

from llmop.clock import SystemClock

LLMOP = str(Path(sys.executable).with_name("llmop"))


@pytest.fixture
def home() -> Iterator[Path]:
    """Short, because paths of sockets are."""
    with tempfile.TemporaryDirectory(prefix="llmop-p-", dir="/tmp") as made:
        yield Path(made)


class Controller:
    """A controller over its own state directory; `log` holds what it says on standard error."""

    def __init__(self, state: Path, *more: str) -> None:
        self.state = state
        self.log = state.with_name(f"{state.name}.log")
        self._begin = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [LLMOP, "controller", "--state-dir", str(state), *more],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                start_new_session=True,
            )

    def said(self) -> str:
        return self.log.read_bytes()[self._begin :].decode(errors="replace")

    def started(self) -> dict[str, Any]:
        """What it says of itself when it answers."""

        def found() -> dict[str, Any] | None:
            assert self.process.poll() is None, self.said()
            lines = [line for line in self.said().splitlines() if '"controller started"' in line]
            return json.loads(lines[0]) if lines else None

        return wait_for("the controller to start", found, timeout=60)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        begun = time.monotonic()
        code = self.process.wait(60)
        print(f"       ended {time.monotonic() - begun:.1f} s after {signal.Signals(number).name}")
        return code

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def environment(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C.UTF-8", **more}


@pytest.fixture
def controller(home: Path) -> Iterator[Callable[..., Controller]]:
    made: list[Controller] = []

    def start(*more: str, state: str = "state") -> Controller:
        made.append(Controller(home / state, *more))
        return made[-1]

    yield start
    for each in made:
        each.kill()


def run(*argv: str, prefix: tuple[str, ...] = (), **more: str) -> tuple[int, str]:
    """Exit code and everything it said."""
    done = subprocess.run(
        [*prefix, LLMOP, *argv],
        capture_output=True,
        text=True,
        env=environment(**more),
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def refused(*argv: str, code: int = 1, prefix: tuple[str, ...] = (), **more: str) -> str:
    """The one sentence of a process that does not start."""
    ended, said = run(*argv, prefix=prefix, **more)
    assert code == ended, said
    assert "Traceback" not in said
    if code == 1:
        assert said.startswith("error: "), said
    return said


# What a controller refuses


def test_a_state_directory_that_others_may_enter_is_refused(home: Path) -> None:
    state = home / "state"
    for mode in (0o755, 0o710, 0o777):
        state.mkdir()
        state.chmod(mode)
        said = refused("controller", "--state-dir", str(state))
        assert f"{state}: others may enter it (mode {mode:04o}); run: chmod 700 {state}" in said
        assert [] == list(state.iterdir())
        state.rmdir()


def test_a_state_directory_of_another_account_is_refused(home: Path) -> None:
    state = Path("/usr")
    if os.geteuid() == 0:
        state = home / "state"
        state.mkdir(mode=0o700)
        os.chown(state, 12345, 12345)
    said = refused("controller", "--state-dir", str(state))
    assert f"{state}: belongs to user id {state.stat().st_uid}, not to you ({os.geteuid()})" in said


def test_a_state_directory_that_is_a_file_is_refused(home: Path) -> None:
    (home / "state").touch()
    assert f"{home}/state: is no directory" in refused("controller", "--state-dir", str(home / "state"))


def on_tmpfs(directory: Path, options: str) -> tuple[str, ...]:
    """Runs the rest of the command where `directory` is a file system of its own, which only that command sees."""
    directory.mkdir()
    namespace = ("--mount",) if os.geteuid() == 0 else ("--mount", "--map-root-user")
    script = 'mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && exec "$@"'
    return ("unshare", *namespace, "sh", "-c", script, "sh", options, str(directory))


def test_a_read_only_state_directory_is_named(home: Path) -> None:
    said = refused("controller", "--state-dir", f"{home}/disk", prefix=on_tmpfs(home / "disk", "ro,mode=700"))
    assert f"state directory {home}/disk: cannot be written: Read-only file system" in said


@pytest.mark.parametrize("size", ["4k", "24k", "64k"])
def test_a_full_disk_is_named(home: Path, size: str) -> None:
    """Whatever does not fit: certificates, or the database."""
    prefix = on_tmpfs(home / "disk", f"size={size},mode=700")
    said = refused("controller", "--state-dir", f"{home}/disk", prefix=prefix)
    print(f"       {said.strip()}")
    assert "No space left on device" in said or "the disk is full" in said
    assert f"{home}/disk" in said


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        ("nonsense", "the address of the store can't be read"),
        ("mysql://u:pass-of-mine@h/d", "there is no store of kind mysql"),
        ("sqlite://", "names no file"),
        ("sqlite:////proc/none/llmop.db", "can't be opened"),
        ("postgresql://u:pass-of-mine@127.0.0.1:1/d", "the Postgres store doesn't answer"),
    ],
)
def test_a_bad_store_is_refused_without_its_password(home: Path, store: str, expected: str) -> None:
    for argv, more in ((("--store", store), {}), ((), {"LLMOP_STORE": store})):
        said = refused("controller", "--state-dir", str(home / "state"), *argv, **more)
        assert expected in said
        assert "pass-of-mine" not in said


def test_a_database_that_is_none_is_refused_and_left_alone(home: Path) -> None:
    file = home / "llmop.db"
    file.write_bytes(b"precious" * 1000)
    said = refused("controller", "--state-dir", str(home / "state"), "--store", f"sqlite:///{file}")
    assert "the file is not an SQLite database" in said
    assert b"precious" * 1000 == file.read_bytes()


@pytest.mark.parametrize("listen", ["7443", ":7443", "h:", "127.0.0.1:99999", "127.0.0.1:-1", "h:²"])
def test_a_bad_agent_address_is_refused(home: Path, listen: str) -> None:
    said = refused("controller", "--state-dir", str(home / "state"), "--agent-listen", listen, code=202)
    assert f'--agent-listen "{listen}": write host:port' in said
    assert not (home / "state").exists()


def test_a_port_that_is_taken_is_named(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = refused("controller", "--state-dir", str(home / "state"), "--agent-listen", address)
    assert f"--agent-listen {address}: Address already in use" in said


def test_broken_certificates_are_named(home: Path, controller: Callable[..., Controller]) -> None:
    first = controller()
    first.started()
    assert 0 == first.end()
    (first.state / "tls/ca.pem").write_text("")
    assert f"{first.state}/tls/ca.pem is no certificate" in refused(
        "controller", "--state-dir", str(first.state)
    )


def test_the_authority_lies_where_it_is_told_and_must_be_private(
    home: Path, controller: Callable[..., Controller]
) -> None:
    authority = home / "authority"
    first = controller("--tls-dir", str(authority))
    first.started()
    assert 0 == first.end()
    assert {"ca.key", "ca.pem"} == {path.name for path in authority.iterdir()}
    assert {"listener.key", "listener.pem"} == {path.name for path in (first.state / "tls").iterdir()}
    authority.chmod(0o755)
    said = refused("controller", "--state-dir", str(first.state), "--tls-dir", str(authority))
    assert f"directory of certificates {authority}: others may enter it (mode 0755); run: chmod 700" in said


def test_a_second_controller_does_not_disturb_the_first(
    home: Path, controller: Callable[..., Controller]
) -> None:
    """Neither one on the same state directory nor one on the same database."""
    first = controller()
    epoch = first.started()["epoch"]
    pid = first.process.pid
    said = refused("controller", "--state-dir", str(first.state))
    assert f"{first.state} is in use by another controller (pid {pid} on {socket.gethostname()})" in said
    database = f"sqlite:///{first.state}/llmop.db"
    said = refused("controller", "--state-dir", str(home / "other"), "--store", database)
    assert f"in use by another controller (pid {pid} on {socket.gethostname()})" in said
    assert 0 == first.end()
    with contextlib.closing(sqlite3.connect(first.state / "llmop.db")) as stored:
        assert [(epoch,)] == stored.execute("SELECT epoch FROM counter").fetchall()
    assert epoch < controller().started()["epoch"]


# How a controller ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(controller: Callable[..., Controller], number: int) -> None:
    one = controller("--local")
    one.started()
    assert 0 == one.end(number)
    assert "Traceback" not in one.said()
    assert not (one.state / "run/controller.sock").exists()


def test_the_epoch_rises_over_every_kind_of_end(controller: Callable[..., Controller]) -> None:
    epochs, authorities, began = [], set(), int(SystemClock().now())
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        one = controller()
        epochs.append(one.started()["epoch"])
        authorities.add((one.state / "tls/ca.pem").read_text())
        one.end(number)
    assert sorted(set(epochs)) == epochs
    assert began <= epochs[0]
    assert epochs[-1] < SystemClock().now() + len(
        epochs
    )  # one more than the last where that is later than the clock
    assert 1 == len(authorities)


def test_a_log_on_a_full_disk_does_not_end_it(home: Path) -> None:
    state = home / "state"
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(
            [LLMOP, "controller", "--state-dir", str(state), "--local"],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=full,
            env=environment(),
        )
    try:
        wait_for(
            "the controller",
            lambda: process.poll() is not None or (state / "shared/agent").exists(),
            timeout=60,
        )
        assert process.poll() is None
        process.terminate()
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def test_a_database_that_is_taken_away_is_missed_and_found_again(
    controller: Callable[..., Controller],
) -> None:
    one = controller("--local")
    one.started()
    database, away = one.state / "llmop.db", one.state / "away.db"
    database.rename(away)
    wait_for("the loss to be noticed", lambda: f"the store {database} is gone" in one.said(), timeout=30)
    away.rename(database)
    assert one.process.poll() is None
    assert 0 == one.end()
    assert not [line for line in one.said().splitlines() if "Traceback" in line]
    assert controller().started()


def test_a_cluster_that_cannot_be_used_does_not_end_it(controller: Callable[..., Controller]) -> None:
    """The manifest is somebody's mistake; other clusters and the next start must not pay for it."""
    one = controller("--local")
    one.started()
    api = ("--controller", f"unix://{one.state}/run/controller.sock")
    llmctl = str(Path(LLMOP).with_name("llmctl"))
    spec = {"driver": "local", "sharedDir": "/proc/none/shared"}
    manifest = {"apiVersion": "llmop/v1alpha1", "kind": "Cluster", "metadata": {"name": "bad"}, "spec": spec}
    subprocess.run(
        [llmctl, *api, "apply", "-f", "-"],
        input=json.dumps(manifest),
        text=True,
        env=environment(),
        check=True,
    )

    def reachable(name: str) -> str:
        assert one.process.poll() is None, one.said()
        shown = subprocess.run(
            [llmctl, *api, "get", f"cluster/{name}", "-o", "json"],
            env=environment(),
            capture_output=True,
            check=True,
        )
        conditions = json.loads(shown.stdout)["status"].get("conditions", [])
        return "".join(each["status"] for each in conditions if each["type"] == "Reachable")

    wanted = {"bad": "False", "default": "True"}
    wait_for(
        "both clusters",
        lambda: wanted == {name: reachable(name) for name in wanted},
        timeout=30,
    )
    assert 0 == one.end()


# llmop up


@pytest.fixture
def laptop(home: Path) -> Iterator[Laptop]:
    made = Laptop(home)
    yield made
    made.clean()


def child(laptop: Laptop, name: str) -> int:
    """The process of `llmop up` with this name."""
    pids = [pid for pid, command in laptop.processes() if f"-m llmop {name} " in command]
    assert 1 == len(pids), laptop.processes()
    return pids[0]


def test_a_second_up_leaves_the_first_alone(laptop: Laptop) -> None:
    laptop.up("--quiet")
    before = {name: child(laptop, name) for name in ("controller", "gateway")}
    context = (laptop.home / ".config/llmop/contexts.yaml").read_text()
    said = refused(
        *("up", "--state-dir", str(laptop.state), "--listen", "127.0.0.1:0"), HOME=str(laptop.home)
    )
    assert f"llmop up runs already in {laptop.state}" in said
    assert before == {name: child(laptop, name) for name in ("controller", "gateway")}
    assert context == (laptop.home / ".config/llmop/contexts.yaml").read_text()
    assert 0 == laptop.end()


def test_a_home_that_cannot_be_written_keeps_nobody_from_working(laptop: Laptop) -> None:
    (laptop.home / ".config").write_text("a file where the directory should be")
    laptop.up("--quiet")
    said = laptop.log.read_text()
    assert "llmctl cannot be told: " in said
    assert f"{laptop.home}/.config/llmop" in said
    way = f"--controller unix://{laptop.state}/run/controller.sock"
    assert f"llmctl {way} get md,rep" in said
    laptop.llmctl(*way.split(), "get", "clusters")
    assert 0 == laptop.end()


def test_directories_on_the_way_to_the_state_are_private_too(laptop: Laptop) -> None:
    before = os.umask(0)
    try:
        laptop.state = laptop.home / "a" / "b" / "state"
        laptop.up("--quiet")
    finally:
        os.umask(before)
    assert {0o700} == {stat.S_IMODE(path.stat().st_mode) for path in list(laptop.state.parents)[:2]}
    assert 0 == laptop.end()


@pytest.mark.parametrize("name", ["controller", "gateway"])
def test_a_child_that_was_killed_is_started_again(laptop: Laptop, name: str) -> None:
    laptop.up("--quiet")
    before = child(laptop, name)
    os.kill(before, signal.SIGKILL)

    def again() -> bool:
        others = [pid for pid, command in laptop.processes() if f"-m llmop {name} " in command]
        return bool(others) and before not in others

    laptop.wait(f"another {name}", again, timeout=30)
    assert f"the {name} has ended; starting it again" in laptop.log.read_text()
    laptop.wait("the controller to answer", laptop.answers, timeout=60)
    assert 0 == laptop.end()


def test_a_child_that_cannot_start_is_reported_in_its_own_words(laptop: Laptop) -> None:
    laptop.state.mkdir(mode=0o700)
    (laptop.state / "llmop.db").write_bytes(b"precious" * 1000)
    said = refused(
        *("up", "--state-dir", str(laptop.state), "--listen", "127.0.0.1:0", "--quiet"),
        HOME=str(laptop.home),
    )
    assert "the controller did not start" in said
    assert "the file is not an SQLite database" in said
    assert [] == laptop.processes()


def test_a_child_that_keeps_ending_is_reported_with_the_end_of_its_log(laptop: Laptop) -> None:
    laptop.up("--quiet")
    os.kill(child(laptop, "gateway"), signal.SIGKILL)
    keys = laptop.state / "gateway/keys"
    keys.chmod(0o644)
    wait_for("llmop up to give up", lambda: [] == laptop.processes(), timeout=60)
    said = laptop.log.read_text()
    assert "the gateway ends again and again" in said
    assert "lets others read or change it; chmod 600 it" in said


def test_a_controller_that_keeps_ending_does_not_take_the_gateway_away(laptop: Laptop) -> None:
    laptop.up("--quiet")
    gateway = child(laptop, "gateway")
    authority = laptop.state / "tls/ca.key"
    authority.chmod(0o644)
    os.kill(child(laptop, "controller"), signal.SIGKILL)
    laptop.wait("a word", lambda: "the controller ends again and again" in laptop.log.read_text(), timeout=60)
    assert "can be read or changed by others" in laptop.log.read_text()
    assert gateway == child(laptop, "gateway")
    authority.chmod(0o600)
    laptop.wait("the controller to answer", laptop.answers, timeout=90)
    assert gateway == child(laptop, "gateway")
    assert 0 == laptop.end()


def test_nothing_of_up_outlives_its_kill_but_replicas(laptop: Laptop) -> None:
    laptop.up("--quiet")
    laptop.end(signal.SIGKILL)
    wait_for("its children to end", lambda: [] == laptop.processes(), timeout=30)


# Secrets


def secrets_of(state: Path) -> dict[str, str]:
    """Every secret of the installation by a name that may be printed."""
    with contextlib.closing(sqlite3.connect(f"file:{state}/llmop.db?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT replica_name, api_key, agent_token FROM ledgers").fetchall()
    found = {"the gateway key": (state / "key").read_text().strip()}
    for name, api_key, token in rows:
        found[f"the engine key of {name}"] = api_key
        found[f"the token of {name}"] = token
    for path in (state / "tls").glob("*.key"):
        found[f"the key {path.name}"] = path.read_text().splitlines()[1]
    return found


def test_secrets_are_in_private_files_and_nowhere_else(laptop: Laptop) -> None:
    """Arguments and files are looked at while everything runs, statuses, events and logs after some life."""
    laptop.up("--quiet")
    laptop.apply(simulator(replicas=1))
    laptop.wait_ready("sim")
    laptop.post(
        "/v1/chat/completions",
        {"model": "sim", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2},
    )
    secrets = secrets_of(laptop.state)
    assert {"engine", "token", "gateway"} <= {name.split(" ")[1] for name in secrets}
    arguments = dict(laptop.processes())
    assert any("replica.json" in command for command in arguments.values()), arguments
    shown = {f"arguments of {command[:80]}": command for command in arguments.values()}
    for kind in ("md", "replicas", "revisions", "clusters", "servingruntimes", "resourceprofiles", "events"):
        shown[f"llmctl get {kind}"] = laptop.llmctl("get", kind, "-o", "yaml", "-A")
    shown["llmctl describe"] = laptop.llmctl("describe", "md/sim")
    shown["llmctl logs"] = laptop.llmctl("logs", "md/sim")
    shown["llmop up"] = laptop.log.read_text()
    holders = {name: set[str]() for name in secrets}
    open_files = []
    for path in laptop.state.rglob("*"):
        if not path.is_file():
            continue
        with contextlib.suppress(FileNotFoundError):
            content = path.read_bytes()
            inside = [name for name, secret in secrets.items() if secret.encode() in content]
            for name in inside:
                holders[name].add(path.suffix or path.name)
            if inside and stat.S_IMODE(path.stat().st_mode) & 0o077:
                open_files.append(str(path))
            if path.name.endswith((".log", ".sh", ".out", ".err")) or path.name in ("script", "job.json"):
                shown[str(path)] = content.decode(errors="replace")
    leaks = [
        (where, name) for where, text in shown.items() for name, secret in secrets.items() if secret in text
    ]
    assert [] == leaks
    assert [] == open_files
    assert all(holders.values()), "a secret that is in no file was not looked for in the right way"
    print(f"       {holders}")
    laptop.llmctl("delete", "md/sim", "--yes", "--wait")
    assert 0 == laptop.end()


def test_nobody_else_may_enter_the_directories_of_an_installation(laptop: Laptop) -> None:
    laptop.up("--quiet")
    directories = [laptop.state, *(path for path in laptop.state.iterdir() if path.is_dir())]
    files = [path for path in laptop.state.iterdir() if path.is_file()]
    assert {0o700} == {stat.S_IMODE(path.stat().st_mode) for path in directories}
    assert {"up.lock": 0o600}.keys() <= {path.name for path in files}
    private = {path.name for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077 == 0}
    assert {"key", "llmop.db", "controller.lock"} <= private
    assert 0 == laptop.end()


# llmop key


def test_a_key_is_shown_once_and_kept_as_a_hash(home: Path) -> None:
    state = home / "state"
    state.mkdir(mode=0o700)
    code, said = run("key", "create", "--state-dir", str(state), "alice")
    assert 0 == code, said
    secret = said.strip()
    assert secret.startswith("llmop-")
    keys = state / "gateway/keys"
    assert [0o700, 0o600] == [stat.S_IMODE(path.stat().st_mode) for path in (keys.parent, keys)]
    assert secret not in keys.read_text()
    assert 'key "alice" already exists' in refused("key", "create", "--state-dir", str(state), "alice")
    for name in ("", "a b", "../x", "-x", "x" * 64, "ä"):
        said = refused("key", "create", "--state-dir", str(state), "--", name)
        assert f'key name "{name}": use 1 to 63 of' in said
    assert ["alice"] == [line.split(" ")[0] for line in keys.read_text().splitlines()]


def test_keys_that_are_made_at_once_are_all_kept(home: Path) -> None:
    state = home / "state"
    state.mkdir(mode=0o700)
    names = [f"user-{number}" for number in range(6)]
    threads = [
        threading.Thread(target=run, args=("key", "create", "--state-dir", str(state), name))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(names) == {line.split(" ")[0] for line in (state / "gateway/keys").read_text().splitlines()}
