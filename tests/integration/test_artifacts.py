"""From a reference in a manifest to an answer: the controller brings weights from a hub before it submits anything."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.installation import simulator
from tests.integration.laptop import Laptop
from tests.rigs.hub import HubServer
from tests.rigs.loopback import Fault

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def hub() -> Iterator[HubServer]:
    hub = HubServer()
    with hub.running():
        yield hub


def gguf(folder: Path) -> bytes:
    path = folder / "made.gguf"
    subprocess.run([sys.executable, ROOT / "hack/make-gguf", path], check=True, timeout=60)
    return path.read_bytes()


def use(laptop: Laptop, hub: HubServer) -> None:
    """The embedded cluster asks the hub on loopback."""
    (cluster,) = laptop.objects("cl")
    document = {
        "apiVersion": "llmop/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": cluster["metadata"]["name"]},
        "spec": cluster["spec"] | {"staging": {"hub": hub.endpoint}},
    }
    laptop.llmctl("apply", "--force", "-f", "-", text=json.dumps(document))


def tiny(name: str, uri: str) -> dict[str, Any]:
    deployment = simulator(name, model={"uri": uri}, runtime="llamacpp")
    deployment["spec"]["args"] = ["--parallel=1", "--ctx=512"]
    return deployment


def condition(laptop: Laptop, name: str, kind: str) -> dict[str, Any]:
    (found,) = [each for each in laptop.objects("md") if each["metadata"]["name"] == name]
    return next((dict(one) for one in found["status"].get("conditions", []) if one["type"] == kind), {})


def test_weights_of_a_hub_are_staged_before_a_replica_is_made_and_serve(
    laptop: Laptop, hub: HubServer
) -> None:
    first = hub.commit("team/tiny", {"tiny.gguf": gguf(laptop.home), "README.md": b"tiny"})
    hold = Fault(path="tiny.gguf", after=100_000, go=threading.Event())
    hub.faults.append(hold)
    laptop.up("--ephemeral")
    use(laptop, hub)
    laptop.apply(tiny("tiny", "hf://team/tiny/tiny.gguf"))

    laptop.wait("the download to be under way", hold.reached.is_set, timeout=60)
    laptop.wait(
        "the condition to say how far it is",
        lambda: (
            condition(laptop, "tiny", "ArtifactsReady").get("reason") == "Downloading"
            and "0 % of" in condition(laptop, "tiny", "ArtifactsReady")["message"]
        ),
        timeout=30,
    )
    assert [] == laptop.objects("rep")
    assert "Downloading" == condition(laptop, "tiny", "Ready")["reason"]

    # The branch moves while the weights are on their way: this revision keeps what it found.
    hub.commit("team/tiny", {"tiny.gguf": b"not a model"})
    assert hold.go is not None
    hold.go.set()
    laptop.wait_ready("tiny")
    assert ("True", "Staged") == tuple(
        condition(laptop, "tiny", "ArtifactsReady")[name] for name in ("status", "reason")
    )
    answer = laptop.post("/v1/completions", {"model": "tiny", "prompt": "Hello", "max_tokens": 4})
    assert answer["usage"]["completion_tokens"] > 0
    (revision,) = laptop.objects("rev")
    assert [{"reference": "hf://team/tiny/tiny.gguf@main", "digest": first}] == revision["status"][
        "artifacts"
    ]
    assert 0 == laptop.end()
    assert [] == laptop.processes()
