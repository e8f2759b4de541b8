"""A tribunal from its manifest to its answer: `llmop up`, llmctl, and real engines whose words mean nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import yaml
from tests.e2e.installation import simulator
from tests.integration.laptop import ROOT, Laptop

MEMBERS = ("first", "second", "third")


def tribunal(name: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    usual = {
        "drafters": [{"model": "first"}, {"model": "second", "n": 2}],
        "critics": [{"model": "second"}, {"model": "third"}],
        "judge": {"model": "third"},
        "answerTokens": 16,
        "maxTokens": 8000,
        "timeout": "4m",
    }
    return {
        "apiVersion": "llmop/v1alpha1",
        "kind": "Tribunal",
        "metadata": {"name": name, "namespace": namespace},
        "spec": usual | spec,
    }


def question(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}]}


def ask(laptop: Laptop, model: str, **more: Any) -> Any:
    return laptop.post("/v1/chat/completions", question(model) | more)


def ready(laptop: Laptop, name: str, namespace: str = "default") -> tuple[str, str, str]:
    found = json.loads(laptop.llmctl("get", "tb", name, "-n", namespace, "-o", "json"))
    conditions = found["status"].get("conditions") if "status" in found else None
    if not conditions:
        return ("", "", "")
    (condition,) = conditions
    return (condition["status"], condition["reason"], condition["message"])


@pytest.mark.timeout(600)  # a minute of computing, on a busy machine several
def test_three_real_engines_write_critique_refine_and_judge(laptop: Laptop) -> None:
    gguf = laptop.home / "tiny.gguf"
    subprocess.run([sys.executable, ROOT / "hack/make-gguf", gguf], check=True, timeout=60)
    laptop.up("--ephemeral")
    deployments = []
    for name in MEMBERS:
        made = simulator(name, model={"uri": f"file://{gguf}"}, runtime="llamacpp")
        made["spec"] |= {"args": ["--parallel=2", "--ctx=8192"], "replicas": 1}
        deployments.append(made)
    # In any order: what it refers to goes first. Critics of noise write at temperature 0: by chance they would not come to an end.
    critics = [{"model": name, "temperature": 0} for name in ("second", "third")]
    panel = tribunal("panel", critics=critics, earlyStop=False, answerTokens=2000, maxTokens=60_000)
    laptop.apply(panel, *deployments)
    laptop.wait("the tribunal to be ready", lambda: ready(laptop, "panel")[0] == "True", timeout=60)
    for name in MEMBERS:
        laptop.wait_ready(name)

    answer = ask(laptop, "panel", max_tokens=16)

    record = answer["llmop"]["tribunal"]
    assert record["outcome"] == "judged", record
    assert len(record["drafts"]) == 6, "three, and each once more after the critics"
    assert len(record["critiques"]) == 4
    for each in record["critiques"]:
        assert not each["problem"], (each, record["calls"])  # llama.cpp holds its models to the form
        assert {review["draft"] for review in each["reviews"]} == {"A", "B", "C"}
    assert record["rounds"] == 1
    assert not record["estimated"]
    assert answer["usage"]["total_tokens"] == sum(each["tokens"]["total_tokens"] for each in record["calls"])
    assert answer["usage"]["completion_tokens"] > 0
    assert laptop.end() == 0
    assert laptop.processes() == []


def test_names_members_and_what_is_refused(laptop: Laptop) -> None:
    laptop.up("--ephemeral")
    engines = [simulator(name, replicas=1) for name in MEMBERS]
    laptop.apply(*engines, tribunal("panel"))
    for name in MEMBERS:
        laptop.wait_ready(name)
    laptop.wait("the tribunal to be ready", lambda: ready(laptop, "panel")[0] == "True", timeout=60)
    laptop.wait("the gateway to know it", lambda: laptop.is_listed("panel"), timeout=30)
    assert ask(laptop, "panel")["model"] == "panel"
    laptop.wait(
        "all to be well",
        lambda: "panel answers: all of its models are served." in laptop.llmctl("why", "tb/panel"),
        timeout=30,
    )

    # Strictly, and all at once
    words = refused_words(
        laptop,
        tribunal(
            "wrong", judge={"model": "nobody"}, critics=[{"model": "panel"}], drafters=[{"model": "wrong"}]
        ),
    )
    assert 'spec.judge.model: there is no ModelDeployment "nobody"' in words
    assert "spec.critics[0].model: 'panel' is a tribunal, which a tribunal cannot ask" in words
    assert "spec.drafters[0].model: 'wrong' is this tribunal itself, which a tribunal cannot ask" in words

    # The oldest holds a name, over namespaces and kinds
    laptop.apply(tribunal("panel", "other"))
    laptop.wait("the conflict", lambda: ready(laptop, "panel", "other")[1] == "NameConflict", timeout=30)
    assert "held by the Tribunal default/panel" in ready(laptop, "panel", "other")[2]
    laptop.apply(simulator("late", model={"name": "panel"}, replicas=1))
    laptop.wait(
        "the conflict", lambda: "NameConflict" in laptop.llmctl("get", "md", "late", "-o", "json"), timeout=30
    )
    laptop.llmctl("delete", "md", "late")

    # A member that goes is named, and the others answer on
    laptop.llmctl("delete", "md", "first")
    laptop.wait("it to be missed", lambda: ready(laptop, "panel")[1] == "MemberMissing", timeout=60)
    assert ready(laptop, "panel")[2] == "no deployment serves first"
    assert "first (drafter-1): no deployment serves it" in laptop.llmctl("why", "tb/panel")
    assert ask(laptop, "panel")["llmop"]["tribunal"]["outcome"] in ("judged", "agreed")

    # Without the controller's word it goes on; what is deleted is gone
    laptop.llmctl("delete", "tb", "panel")
    laptop.wait(
        "the other to take over", lambda: ready(laptop, "panel", "other")[1] == "MemberMissing", timeout=30
    )
    laptop.llmctl("delete", "tb", "panel", "-n", "other")
    laptop.wait("the gateway to forget it", lambda: not laptop.is_listed("panel"), timeout=30)
    assert laptop.status("/v1/chat/completions", question("panel")) == 404
    assert laptop.end() == 0


def refused_words(laptop: Laptop, document: dict[str, Any]) -> str:
    done = laptop.run("apply", "-f", "-", text=yaml.safe_dump(document))
    assert done.returncode != 0
    return done.stderr
