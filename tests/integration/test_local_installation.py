"""`llmop up` and llmctl as people use them on a laptop: real processes, replicas that are local processes, a real engine."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.e2e.installation import simulator
from tests.e2e.traffic import Traffic
from tests.rigs.processes import tail, wait_for

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


class Laptop:
    """A person's account: a home directory of their own, `llmop up` in it, and llmctl, which finds it by itself."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.state = home / "state"
        self.log = home / "up.log"
        self._up: subprocess.Popen[bytes] | None = None
        self._environment = {
            "HOME": str(home),
            "PATH": f"{BIN}:/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
        }

    def up(self, *more: str) -> None:
        with self.log.open("ab") as log:
            self._up = subprocess.Popen(
                [BIN / "llmop", "up", "--state-dir", str(self.state), "--listen", "127.0.0.1:0", *more],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        up = self._up
        self.wait(
            "llmop to be up or to fail",
            lambda: "llmop is up" in self.log.read_text() or up.poll() is not None,
            timeout=60,
        )
        assert up.poll() is None, self.report()

    def end(self, number: int = signal.SIGINT, *, timeout: float = 60) -> int:
        """The exit code of `llmop up` after a signal."""
        assert self._up is not None
        self._up.send_signal(number)
        code = self._up.wait(timeout)
        self._up = None
        return code

    def clean(self) -> None:
        """Whatever a test did: nothing of it stays. Ours is what runs with this home directory."""
        if self._up is not None:
            self._up.kill()
            self._up.wait()
        for _ in range(3):
            for pid, _command in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            threading.Event().wait(0.1)

    def processes(self) -> list[tuple[int, str]]:
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                if command and str(self.home).encode() in command + (entry / "environ").read_bytes():
                    found.append((int(entry.name), command.replace(b"\0", b" ").decode(errors="replace")))
        return found

    def llmctl(self, *argv: str, text: str = "", code: int = 0) -> str:
        done = subprocess.run(
            [BIN / "llmctl", *argv],
            env=self._environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert code == done.returncode, (
            f"{argv} ended with {done.returncode}: {done.stdout}{done.stderr}\n{self.report()}"
        )
        return done.stdout

    def apply(self, *documents: dict[str, Any]) -> None:
        self.llmctl("apply", "-f", "-", text=yaml.safe_dump_all(documents))

    def wait_ready(self, name: str) -> None:
        self.llmctl("wait", f"md/{name}", "--for=condition=Ready", "--timeout=90s")

    def objects(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.llmctl("get", kind, "-o", "json"))["items"]
        return found

    @property
    def gateway(self) -> tuple[int, str]:
        """Port and key, as the context file says."""
        (context,) = yaml.safe_load((self.home / ".config/llmop/contexts.yaml").read_text())["contexts"]
        return int(context["gateway"].rpartition(":")[2]), Path(context["keyFile"]).read_text().strip()

    def kept(self) -> list[dict[str, Any]]:
        """The endpoints in the table that the gateway has on its disk."""
        tables = [json.loads(path.read_text())["table"] for path in self.state.rglob("endpoints.json")]
        return [endpoint for table in tables for endpoint in table["endpoints"]]

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        port, key = self.gateway
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer: dict[str, Any] = json.load(response)
        return answer

    def metric(self, name: str) -> float:
        """The sum of a metric of the gateway over its series."""
        port, key = self.gateway
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {key}"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{"))

    def comments(self, model: str) -> list[str]:
        """What a stream says before its first event."""
        port, key = self.gateway
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/completions",
            json.dumps({"model": model, "prompt": "Hello", "max_tokens": 2, "stream": True}).encode(),
            {
                "Authorization": f"Bearer {key}",
                "Content-Type": "application/json",
                "x-llmop-progress": "1",
            },
        )
        said: list[str] = []
        with urllib.request.urlopen(request, timeout=60) as response:
            for line in response:
                if line.startswith(b"data:") or len(said) > 8:  # one comes at least every ten seconds
                    return said
                if line.strip():
                    said.append(line.decode().strip())
        return said

    @contextlib.contextmanager
    def flowing(self, model: str) -> Iterator[Traffic]:
        traffic = Traffic(*self.gateway, model)
        traffic.start()
        try:
            yield traffic
        finally:
            traffic.stop()
        print(f"       {traffic}")
        assert [] == traffic.failures[:10], self.report()

    def wait(self, what: str, probe: Any, *, timeout: float) -> Any:
        try:
            return wait_for(what, probe, timeout=timeout)
        except Exception as error:
            raise AssertionError(f"{error}\n{self.report()}") from error

    def report(self) -> str:
        logs = [
            self.log,
            *sorted(self.state.glob("logs/*.log")),
            *sorted(self.state.glob("shared/replicas/*/*.log")),
        ]
        return "\n".join(f"--- {path}\n{tail(path, 20)}" for path in logs)


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    made = Laptop(tmp_path)
    yield made
    made.clean()


def test_from_up_to_an_end_that_leaves_nothing(laptop: Laptop) -> None:
    """Apply, get, scale, delete with llmctl; Ctrl-C ends the rest."""
    laptop.up("--ephemeral")
    laptop.apply(simulator(replicas=2))
    laptop.wait_ready("sim")
    with laptop.flowing("sim") as traffic:
        assert "2/2" in laptop.llmctl("get", "md")
        laptop.llmctl("scale", "md", "sim", "--replicas=3")
        laptop.wait_ready("sim")
        traffic.phase("three")
        laptop.wait("all three to answer", lambda: len(traffic.replicas) == 3, timeout=30)
        laptop.llmctl("scale", "md", "sim", "--replicas=1")
        laptop.wait_ready("sim")
        laptop.wait("the others to be gone", lambda: 1 == len(laptop.objects("rep")), timeout=30)
    laptop.apply(simulator("other"))
    laptop.wait_ready("other")
    laptop.llmctl("delete", "md", "other")
    assert ["sim"] == [each["metadata"]["name"] for each in laptop.objects("md")]
    assert 0 == laptop.end(signal.SIGINT)
    assert [] == laptop.processes()
    assert not laptop.state.exists()


def test_a_killed_controller_is_started_again_and_nobody_notices(laptop: Laptop) -> None:
    laptop.up("--ephemeral")
    laptop.apply(simulator(replicas=2))
    laptop.wait_ready("sim")
    before = {each["metadata"]["name"]: each["status"]["jobId"] for each in laptop.objects("rep")}
    with laptop.flowing("sim") as traffic:
        (controller,) = [pid for pid, command in laptop.processes() if " controller " in command]
        os.kill(controller, signal.SIGKILL)
        laptop.wait("up to start it again", lambda: "starting it again" in laptop.log.read_text(), timeout=30)
        laptop.wait("the new one to answer", lambda: _answers(laptop), timeout=30)
        traffic.phase("again")
        laptop.wait("both to answer", lambda: len(traffic.replicas) == 2, timeout=30)
        laptop.llmctl("scale", "md", "sim", "--replicas=3")
        laptop.wait_ready("sim")
        traffic.phase("three")
        laptop.wait("all three to answer", lambda: len(traffic.replicas) == 3, timeout=30)
    after = {each["metadata"]["name"]: each["status"]["jobId"] for each in laptop.objects("rep")}
    assert before.items() <= after.items()
    assert 0 == laptop.end(signal.SIGTERM)
    assert [] == laptop.processes()


def test_replicas_outlive_up_and_are_found_again(laptop: Laptop) -> None:
    """Without --ephemeral: what is installed stays, also after a kill -9 of everything but the replicas."""
    laptop.up()
    laptop.apply(simulator(replicas=2))
    laptop.wait_ready("sim")
    before = {each["metadata"]["name"]: each["status"]["jobId"] for each in laptop.objects("rep")}
    # What a gateway has not written down yet it does not know after kill -9.
    laptop.wait("the gateway to keep both endpoints", lambda: len(laptop.kept()) == 2, timeout=30)
    laptop.end(signal.SIGKILL)
    laptop.wait(
        "controller and gateway to end with up",
        lambda: (
            not [
                command
                for _, command in laptop.processes()
                if " controller " in command or " gateway " in command
            ]
        ),
        timeout=30,
    )
    laptop.log.write_text("")
    laptop.up()
    laptop.wait_ready("sim")
    with laptop.flowing("sim") as traffic:
        laptop.wait("both to answer", lambda: len(traffic.replicas) == 2, timeout=30)
    assert before == {each["metadata"]["name"]: each["status"]["jobId"] for each in laptop.objects("rep")}
    laptop.llmctl("delete", "md", "sim")
    assert 0 == laptop.end()
    assert [] == laptop.processes()


def test_requests_for_a_model_without_a_replica_wait_for_it(laptop: Laptop) -> None:
    """Scaled to zero, asked by many, scaled up by hand: everybody is answered, and told before what for to wait."""
    laptop.up("--ephemeral")
    laptop.apply(simulator(replicas=1, args=["--load-seconds=1"]))
    laptop.wait_ready("sim")
    laptop.llmctl("scale", "md", "sim", "--replicas=0")
    laptop.wait("the last replica to be gone", lambda: laptop.objects("rep") == [], timeout=60)
    laptop.wait("the gateway to know", lambda: laptop.kept() == [], timeout=30)
    lead = laptop.objects("md")[0]["status"]["leadTime"]
    assert len(lead["last"]) == 1
    with concurrent.futures.ThreadPoolExecutor(21) as pool:
        asked = [
            pool.submit(laptop.post, path, {"model": "sim", **body})
            for path, body in [
                ("/v1/completions", {"prompt": "Hello", "max_tokens": 4}),
                ("/generate", {"inputs": "Hello", "parameters": {"max_new_tokens": 4}}),
            ]
            * 10
        ]
        laptop.wait("all to wait", lambda: laptop.metric("llmop_gateway_queued") == 20, timeout=30)
        comments = pool.submit(laptop.comments, "sim")
        laptop.wait("one more to wait", lambda: laptop.metric("llmop_gateway_queued") == 21, timeout=30)
        laptop.llmctl("scale", "md", "sim", "--replicas=1")
        answers = [one.result(90) for one in asked]
        assert all("choices" in answer or "generated_text" in answer for answer in answers)
        said = comments.result(90)
    assert said[0] == ": waiting for a replica"
    assert any(line.startswith(": loading") for line in said)
    assert laptop.metric("llmop_gateway_queued") == 0
    assert 0 == laptop.end()
    assert [] == laptop.processes()


def test_llama_cpp_answers_through_the_gateway(laptop: Laptop) -> None:
    """A real engine on a random model made on the spot."""
    gguf = laptop.home / "tiny.gguf"
    subprocess.run([sys.executable, ROOT / "hack/make-gguf", gguf], check=True, timeout=60)
    laptop.up("--ephemeral")
    deployment = simulator("tiny", model={"uri": f"file://{gguf}"}, runtime="llamacpp")
    deployment["spec"]["args"] = ["--parallel=1", "--ctx=512"]
    laptop.apply(deployment)
    laptop.wait_ready("tiny")
    messages = [{"role": "user", "content": "Hello"}]
    answer = laptop.post("/v1/chat/completions", {"model": "tiny", "messages": messages, "max_tokens": 8})
    assert "tiny" == answer["model"]
    assert answer["usage"]["completion_tokens"] > 0
    assert "assistant" == answer["choices"][0]["message"]["role"]
    assert 0 == laptop.end()
    assert [] == laptop.processes()


def _answers(laptop: Laptop) -> bool:
    try:
        laptop.llmctl("get", "md")
        return True
    except AssertionError:
        return False


def test_preflight_and_doctor_of_a_laptop(laptop: Laptop) -> None:
    """Without Slurm: jobs are processes, and the look at a node is one at this machine."""
    laptop.up()
    found = json.loads(laptop.llmctl("preflight", "-o", "json"))["checks"]
    assert [each for each in found if each["result"] == "FAIL"] == []
    passed = {each["name"] for each in found if each["result"] == "PASS"}
    assert {"Slurm", "Python", "SharedDirectory", "NodeToController", "GatewayToNode", "GPUs"} <= passed
    assert list((laptop.state / "shared" / "preflight").iterdir()) == []
    examined = json.loads(laptop.llmctl("doctor", "-o", "json"))["checks"]
    assert [each for each in examined if each["result"] == "FAIL"] == []
    assert {"store", "controller", "cluster default", "agents"} <= {each["subject"] for each in examined}
    assert laptop.llmctl("discover", code=212) == ""  # there is no Slurm to ask, and it says so on stderr
    assert laptop.end() == 0


def test_a_key_is_made_used_limited_accounted_for_and_taken_back(laptop: Laptop) -> None:
    laptop.up("--ephemeral")
    laptop.apply(simulator(), simulator("other"))
    laptop.wait_ready("sim")
    laptop.wait_ready("other")
    key = laptop.llmctl("key", "create", "ci", "--model=sim", "--requests-per-minute=5").strip()

    def status(path: str, body: dict[str, Any] | None = None) -> int:
        request = urllib.request.Request(
            f"http://127.0.0.1:{laptop.gateway[0]}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    laptop.wait("the gateway to know the key", lambda: status("/v1/models") == 200, timeout=10)
    answers = [status("/v1/completions", {"model": "sim", "prompt": "x", "max_tokens": 3}) for _ in range(7)]
    assert [200] * 5 + [429] * 2 == answers
    assert 404 == status("/v1/completions", {"model": "other", "prompt": "x"})

    def used() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(laptop.llmctl("usage", "--key=default/ci", "-o", "json"))
        return rows

    laptop.wait("the usage to arrive", lambda: [each["requests"] for each in used()] == [5], timeout=30)
    (row,) = used()
    assert ("sim", 15, 2) == (row["model"], row["completion_tokens"], row["limited"])
    laptop.llmctl("delete", "apikey", "ci")
    laptop.wait("the key to be refused", lambda: status("/v1/models") == 401, timeout=10)
