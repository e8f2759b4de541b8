"""A stager is killed at every single effect that it has on the disk, and the next one brings the work to its end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.rigs.hub import HubServer
from tests.rigs.registry import RegistryServer

from llmop.artifacts import layout
from llmop.artifacts.order import Order
from llmop.domain import artifact

ROOT = Path(__file__).resolve().parents[3]


def interrupt(order: Order, folder: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.rigs.interrupted", order.dump(), str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def left_over(shared: Path) -> list[str]:
    """Everything but finished artifacts and what is told of them."""
    found = [*shared.glob("*/.staging/*"), *(each for each in shared.glob("*/.*") if each.name != ".staging")]
    return [str(each) for each in found]


def test_weights_survive_a_kill_at_every_step(tmp_path: Path) -> None:
    hub = HubServer()
    contents = {"config.json": b"{}", "model.safetensors": b"w" * 5000}
    with hub.running():
        commit = hub.commit("team/model", contents)
        order = Order(reference="hf://team/model@main", digest=commit, shared_dir="/", endpoint=hub.endpoint)
        tries = interrupt(order, tmp_path)

    kinds = {each["killed"].partition(" ")[0] for each in tries[:-1]}
    assert {"os.mkdir", "open", "os.rename", "os.remove", "os.rmdir"} <= kinds
    assert "" == tries[-1]["killed"]
    for each in tries:
        assert commit == each["then"], each
        shared = tmp_path / str(each["try"])
        place = layout.place(shared, artifact.entry(artifact.parse(order.reference), commit))
        assert contents == {path.name: path.read_bytes() for path in place.final.iterdir()}, each
        assert 5002 == layout.read_json(place.facts)["size"], each
        # One that is killed on its way out leaves its lock or its work: the second one has nothing to do and goes.
        assert each["finished"] or [] == left_over(shared), each


@pytest.mark.timeout(600)
def test_an_image_survives_a_kill_at_every_step(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "data").write_bytes(b"d" * 5000)
    registry = RegistryServer()
    with registry.running():
        digest = registry.push("team/engine", "1.0", tree)
        reference = f"docker://{registry.address}/team/engine:1.0"
        order = Order(reference=reference, digest=digest, shared_dir="/", insecure=(registry.address,))
        tries = interrupt(order, tmp_path)

    kinds = {each["killed"].partition(" ")[0] for each in tries[:-1]}
    assert {"os.mkdir", "open", "os.rename", "os.rmdir", "subprocess.Popen"} <= kinds
    assert "" == tries[-1]["killed"]
    for each in tries:
        assert digest == each["then"], each
        shared = tmp_path / str(each["try"])
        place = layout.place(shared, artifact.entry(artifact.parse(reference), digest))
        assert place.final.read_bytes()[:64].count(b"SIF"), each
        assert each["finished"] or [] == left_over(shared), each
        assert place.final.stat().st_size == layout.read_json(place.facts)["size"], each
