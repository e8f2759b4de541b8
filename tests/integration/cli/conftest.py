"""llmctl against a real control server in this process: fixed clock, store in memory."""

import asyncio
import contextlib
import dataclasses
import io
import os
import sys
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import structlog
from tests.control import manifests
from tests.control.rig import Administration, Endpoints, Loads, listed
from tests.integration.cli import terminal

import llmop
from llmop.cli import main
from llmop.domain import resources
from llmop.manifest import merge
from llmop.rpc import server
from llmop.store import interface
from llmop.testing.clock import FakeClock
from llmop.testing.memory_store import MemoryStore

_Result = TypeVar("_Result")
NOW = 1_760_000_000.0  # 2025-10-09T08:53:20Z


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one command left behind."""

    stdout: str
    stderr: str
    code: int


class World:
    """A control server in a thread, and what the tests put into its store."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.address = f"unix://{directory}/run/control.sock"
        self.clock = FakeClock(seed=7, start=NOW)
        self.store: MemoryStore
        self.is_terminal = False  # whether stdout and stderr of commands are terminals
        self.administration = Administration()
        self.loads = Loads()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._control: server.ControlServer

    def start(self) -> None:
        self._thread.start()
        self.do(self._start())

    def restart(self) -> None:
        """The controller goes away and comes back; the store stays."""
        self.do(self._control.stop(grace_s=0))
        self.do(self._serve())

    async def _start(self) -> None:
        self.store = MemoryStore("k3v9qd")
        await self._serve()

    async def _serve(self) -> None:
        self._control = server.build(
            self.address,
            store=self.store,
            objects=listed(self.store),
            clock=self.clock,
            endpoints=Endpoints(),
            loads=self.loads,
            seen_at=lambda _name: None,
            hint=lambda kind, namespace, name: None,
            administration=self.administration,
            log_poll_s=0.01,
        )
        await self._control.start()

    def stop(self) -> None:
        self.do(self._control.stop(grace_s=0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def do(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def commit(self, *writes: interface.Write) -> None:
        self.do(self.store.commit(writes))

    def add(
        self, document: Mapping[str, Any], *, uid: str, created_at: float = NOW - 600
    ) -> resources.Resource:
        """Stores what a manifest says, as if it had been applied."""
        applied = merge.apply(None, document, manager="llmctl")
        finalizers = ("llmop/jobs",) if applied.resource.kind == resources.MODEL_DEPLOYMENT else ()
        resource = dataclasses.replace(
            applied.resource, uid=uid, created_at=created_at, finalizers=finalizers
        )
        self.commit(interface.Create(resource=resource))
        return self.get(resource.kind, resource.name, resource.namespace)

    def get(self, kind: str, name: str, namespace: str = "default") -> resources.Resource:
        return self.do(self.store.get(kind, namespace, name))

    def base(self) -> None:
        """What the smallest deployment refers to."""
        self.add(manifests.cluster(shared_dir=str(self.directory / "shared")), uid="uid-cluster")
        self.add(manifests.runtime(), uid="uid-runtime")
        self.add(manifests.profile(), uid="uid-profile")

    def replica(self, name: str, deployment: str = "chat", **status: Any) -> None:
        replica = resources.Resource(
            kind=resources.REPLICA,
            name=name,
            namespace="default",
            uid=f"uid-{name}",
            created_at=NOW - 300,
            owner=resources.Owner(kind="ModelDeployment", name=deployment, uid=f"uid-{deployment}"),
            spec={"deployment": deployment, "revision": 1, "cluster": "default", "drain": None},
            status=status,
        )
        self.commit(interface.Create(resource=replica))

    def revision(self, name: str, deployment: str = "chat", **status: Any) -> None:
        revision = resources.Resource(
            kind=resources.REVISION,
            name=name,
            namespace="default",
            uid=f"uid-{name}",
            owner=resources.Owner(kind="ModelDeployment", name=deployment, uid=f"uid-{deployment}"),
            spec={"revision": 1, "hash": "0", "template": {}},
            status=status,
        )
        self.commit(interface.Create(resource=revision))

    def spec(self, kind: str, name: str, spec: Mapping[str, Any]) -> None:
        """Stored as it is, whatever rules it breaks."""
        live = self.get(kind, name, "default" if resources.KINDS[kind].namespaced else "")
        changed = dataclasses.replace(live, spec=spec)
        self.commit(interface.Update(resource=changed, expected_version=live.resource_version))

    def status(self, kind: str, name: str, **status: Any) -> None:
        """Writes a status whose conditions are about the newest generation."""
        live = self.get(kind, name, "default" if resources.KINDS[kind].namespaced else "")
        fresh = {"observedGeneration": live.generation, "lastTransitionTime": "2025-10-09T08:50:00Z"}
        if "conditions" in status:
            status["conditions"] = [{**fresh, **each} for each in status["conditions"]]
        self.commit(
            interface.WriteStatus(
                kind=kind,
                namespace=live.namespace,
                name=name,
                uid=live.uid,
                expected_version=live.resource_version,
                status={"observedGeneration": live.generation, **status},
            )
        )

    def event(
        self, kind: str, name: str, reason: str, message: str, *, ago: float, warning: bool = False
    ) -> None:
        self.commit(
            interface.RecordEvent(
                namespace="default",
                regarding=resources.Owner(kind=kind, name=name, uid=f"uid-{name}"),
                type="Warning" if warning else "Normal",
                reason=reason,
                message=message,
                at=NOW - ago,
            )
        )

    def llmctl(self, *arguments: str, stdin: str = "") -> Outcome:
        """One command to this controller, in this process."""
        return self.alone("--controller", self.address, *arguments, stdin=stdin)

    def alone(self, *arguments: str, stdin: str = "") -> Outcome:
        """One command that finds its controller by itself, if it needs one."""
        before = sys.stdin
        sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8")
        out, error = (terminal.Side() if self.is_terminal else _Pipe() for _ in range(2))
        try:
            with contextlib.redirect_stdout(out.file), contextlib.redirect_stderr(error.file):
                code = main.run(arguments, self.clock)
        finally:
            sys.stdin = before
            shown = [side.close() for side in (out, error)]
        return Outcome(stdout=self._plain(shown[0]), stderr=self._plain(shown[1]), code=code)

    def _plain(self, text: str) -> str:
        return text.replace(str(self.directory), "/home/me").replace(llmop.__version__, "VERSION")


class _Pipe:
    """What is no terminal."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        self.file = io.TextIOWrapper(self._bytes, "utf-8", write_through=True)

    def close(self) -> str:
        """All that was written."""
        text = self._bytes.getvalue().decode()
        self.file.close()
        return text


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    running = World(tmp_path)
    running.start()
    try:
        yield running
    finally:
        running.stop()
        structlog.reset_defaults()


class Transcript:
    """A session of commands that is compared with a file: stdout, stderr and exit code of each.

    On a terminal it is compared with the same file, or with NAME.terminal.txt where that looks different. UPDATE_GOLDEN=1 writes them.
    """

    def __init__(self, world: World, path: Path) -> None:
        self.world = world
        self._path = path
        self._lines: list[str] = []

    def run(self, *arguments: str, stdin: str = "") -> Outcome:
        return self._note(arguments, self.world.llmctl(*arguments, stdin=stdin))

    def alone(self, *arguments: str) -> Outcome:
        """Without --controller."""
        return self._note(arguments, self.world.alone(*arguments))

    def _note(self, arguments: Sequence[str], outcome: Outcome) -> Outcome:
        shown = [f"'{each}'" if " " in each else each for each in arguments]
        command = " ".join(shown).replace(str(self.world.directory), "/home/me")
        self._lines.append(f"$ llmctl {command}\n")
        self._lines += outcome.stdout.splitlines(keepends=True)
        if outcome.stdout and not outcome.stdout.endswith("\n"):
            self._lines.append("\n\\ no line end\n")
        self._lines += [f"2| {line}" for line in outcome.stderr.splitlines(keepends=True)]
        self._lines.append(f"= {outcome.code}\n\n")
        return outcome

    def compare(self) -> None:
        text = "".join(self._lines)
        path, own = self._path, self._path.with_suffix(".terminal.txt")
        if os.environ.get("UPDATE_GOLDEN"):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not self.world.is_terminal:
                path.write_text(text)
            elif path.read_text() != text:
                own.write_text(text)
            else:
                own.unlink(missing_ok=True)
        if self.world.is_terminal and own.exists():
            path = own
        assert path.read_text() == text

    def write(self, name: str, text: str) -> str:
        """A file whose name commands may use."""
        path = self.world.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)


@pytest.fixture(params=["pipe", "terminal"])
def transcript(request: pytest.FixtureRequest, world: World) -> Iterator[Transcript]:
    name = request.node.originalname.removeprefix("test_")
    world.is_terminal = request.param == "terminal"
    golden = Path(__file__).parents[2] / "golden" / "cli" / f"{name}.txt"
    recorded = Transcript(world, golden)
    yield recorded
    recorded.compare()


def conditions(**statuses: Sequence[str]) -> list[dict[str, str]]:
    """`Ready=("False", "QueuePending", "why")` and so on."""
    return [
        {"type": kind, "status": words[0], "reason": words[1], "message": words[2] if len(words) > 2 else ""}
        for kind, words in statuses.items()
    ]
