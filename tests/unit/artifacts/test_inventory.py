"""What lies on a disk, who uses it, and what goes: each case a real directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmop.artifacts import inventory, layout
from llmop.domain import artifact, staging
from llmop.files import lock

IMAGE = staging.Pin(reference="docker://ghcr.io/team/engine:1.0", digest=f"sha256:{'a' * 64}")
MODEL = staging.Pin(reference="hf://team/model@main", digest="b" * 40)


def entry(pin: staging.Pin) -> str:
    return artifact.entry(artifact.parse(pin.reference), pin.digest)


def stage(shared: Path, pin: staging.Pin, size: int = 100) -> layout.Place:
    place = layout.place(shared, entry(pin))
    if entry(pin).startswith("images/"):
        place.folder.mkdir(exist_ok=True)
        place.final.write_bytes(b"x" * size)
    else:
        place.final.mkdir(parents=True)
        (place.final / "weights").write_bytes(b"x" * size)
    facts = {"reference": pin.reference, "digest": pin.digest, "stagedAt": "2026-01-02T03:04:05+00:00"}
    place.facts.write_text(json.dumps(facts))
    return place


def begin(shared: Path, pin: staging.Pin) -> layout.Place:
    place = layout.place(shared, entry(pin))
    place.work.mkdir(parents=True)
    (place.work / "part").write_bytes(b"x" * 10)
    return place


def test_everything_is_listed_with_who_uses_it(tmp_path: Path) -> None:
    stage(tmp_path, MODEL, 200)
    stage(tmp_path, IMAGE)
    begin(tmp_path, staging.Pin(reference="hf://team/other@main", digest="c" * 40))
    (tmp_path / "images/mine.sif").write_bytes(b"somebody's own")
    used = inventory.uses([("default/chat:2", (MODEL,)), ("default/chat:1", (MODEL,)), ("x/y:1", ())])

    image, model, other = inventory.items(inventory.look(tmp_path), used)

    assert (entry(IMAGE), 100, "docker://ghcr.io/team/engine:1.0", ()) == (
        image.found.entry,
        image.found.size,
        image.found.reference,
        image.used_by,
    )
    assert (entry(MODEL), 200, "2026-01-02T03:04:05+00:00", ("default/chat:1", "default/chat:2")) == (
        model.found.entry,
        model.found.size,
        model.found.staged_at,
        model.used_by,
    )
    assert (False, 10, ()) == (other.found.is_finished, other.found.size, other.used_by)
    assert (image, other) == inventory.spare((image, model, other))


def test_nothing_is_there_before_anything_was_staged(tmp_path: Path) -> None:
    assert () == inventory.look(tmp_path)


@pytest.mark.parametrize("pin", [IMAGE, MODEL], ids=["image", "model"])
def test_what_is_removed_leaves_nothing(tmp_path: Path, pin: staging.Pin) -> None:
    place = stage(tmp_path, pin)
    begin(tmp_path, pin)

    assert "" == inventory.set_aside(tmp_path, entry(pin))
    assert not place.final.exists()
    inventory.delete(tmp_path, entry(pin))

    assert [] == [each for each in tmp_path.rglob("*") if each.is_file()]
    assert [] == list(place.work.parent.iterdir())


@pytest.mark.parametrize("pin", [IMAGE, MODEL], ids=["image", "model"])
def test_what_is_needed_after_all_comes_back_as_it_was(tmp_path: Path, pin: staging.Pin) -> None:
    place = stage(tmp_path, pin)
    before = inventory.look(tmp_path)

    inventory.set_aside(tmp_path, entry(pin))
    inventory.put_back(tmp_path, entry(pin))

    assert before == inventory.look(tmp_path)
    assert place.final.exists()


def test_what_a_crash_has_set_aside_is_listed_and_goes_the_next_time(tmp_path: Path) -> None:
    stage(tmp_path, MODEL)
    inventory.set_aside(tmp_path, entry(MODEL))

    (found,) = inventory.look(tmp_path)
    assert (entry(MODEL), 100, False) == (found.entry, found.size, found.is_finished)
    assert "" == inventory.set_aside(tmp_path, entry(MODEL))
    inventory.delete(tmp_path, entry(MODEL))
    assert () == inventory.look(tmp_path)


def test_what_is_being_staged_stays(tmp_path: Path) -> None:
    place = begin(tmp_path, MODEL)
    held = lock.Lock(place.lock, lock.myself())
    assert held.take()

    assert "it is being staged" == inventory.set_aside(tmp_path, entry(MODEL))
    assert held.is_mine()
