"""`llmop up` and llmctl as people use them on a laptop: real processes, replicas that are local processes, a real engine."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
from typing import Any

from tests.e2e.installation import simulator
from tests.integration.laptop import ROOT, Laptop


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
        laptop.wait("the new one to answer", laptop.answers, timeout=30)
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
    laptop.apply(simulator(replicas=1, args=["--load-seconds=3"]))
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
    key = laptop.llmctl("key", "create", "ci", "--model=sim", "--requests-per-minute=2").strip()

    def status(path: str, body: dict[str, Any] | None = None) -> int:
        return laptop.status(path, body, key=key)

    laptop.wait("the gateway to know the key", lambda: status("/v1/models") == 200, timeout=30)
    answers = [status("/v1/completions", {"model": "sim", "prompt": "x", "max_tokens": 3}) for _ in range(4)]
    assert [200] * 2 + [429] * 2 == answers
    assert 404 == status("/v1/completions", {"model": "other", "prompt": "x"})

    def used() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(laptop.llmctl("usage", "--key=default/ci", "-o", "json"))
        return rows

    laptop.wait("the usage to arrive", lambda: [each["requests"] for each in used()] == [2], timeout=30)
    (row,) = used()
    assert ("sim", 6, 2) == (row["model"], row["completion_tokens"], row["limited"])
    laptop.llmctl("delete", "apikey", "ci")
    laptop.wait("the key to be refused", lambda: status("/v1/models") == 401, timeout=30)
