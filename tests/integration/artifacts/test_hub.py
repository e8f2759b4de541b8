"""Weights from a hub: fetched, resumed, compared, refused. Real stagers against a hub on loopback."""

from __future__ import annotations

import random
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.rigs.hub import HubServer
from tests.rigs.loopback import Fault
from tests.rigs.processes import wait_for
from tests.rigs.stagers import StagerProcess, run, small_disk

from llmop.artifacts import layout
from llmop.artifacts.order import Order
from llmop.domain import artifact
from llmop.files import lock

MB = 1024 * 1024
# The library hands over what it reads in pieces of 10 MB: a part of a file is on the disk from then on.
LARGE = random.Random(1).randbytes(25 * MB)
WEIGHTS = "model.safetensors"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    hub = HubServer()
    with hub.running():
        yield hub


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o700)
    return folder


def order(
    hub: HubServer, shared: Path, uri: str = "hf://team/model@main", digest: str = "", **more: Any
) -> Order:
    return Order(reference=uri, digest=digest, shared_dir=str(shared), endpoint=hub.endpoint, **more)


def place(shared: Path, digest: str, uri: str = "hf://team/model@main") -> layout.Place:
    return layout.place(shared, artifact.entry(artifact.parse(uri), digest))


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def left_over(shared: Path) -> list[str]:
    return [str(each) for each in (shared / "models/.staging").rglob("*")]


def test_a_repository_arrives_whole_and_nothing_else_is_left(hub: HubServer, shared: Path) -> None:
    wanted = {"config.json": b"{}", "sub/tokenizer.json": b"tok" * 1000, WEIGHTS: b"w" * 5000}
    spare = {
        "pytorch_model.bin": b"b" * 5000,
        "original/consolidated.pth": b"o" * 5000,
        ".gitattributes": b"x",
    }
    commit = hub.commit("team/model", wanted | spare)

    assert {"digest": commit} == run(order(hub, shared))
    assert {"digest": commit} == run(order(hub, shared, digest=commit))

    found = place(shared, commit)
    assert wanted == files_in(found.final)
    facts = layout.read_json(found.facts)
    assert ("hf://team/model@main", commit, 3) == (facts["reference"], facts["digest"], facts["files"])
    assert sum(map(len, wanted.values())) == facts["size"]
    assert [] == left_over(shared)
    assert [0o600] * 3 == [each.stat().st_mode & 0o777 for each in found.final.rglob("*") if each.is_file()]


def test_what_is_there_is_not_fetched_again(hub: HubServer, shared: Path) -> None:
    commit = hub.commit("team/model", {WEIGHTS: b"w" * 5000})
    run(order(hub, shared, digest=commit))
    hub.asked.clear()

    assert {"digest": commit} == run(order(hub, shared, digest=commit))
    assert [] == hub.asked


def test_one_file_and_the_parts_of_a_split_one(hub: HubServer, shared: Path) -> None:
    parts = {f"q4-0000{number}-of-00002.gguf": b"p" * 3000 for number in (1, 2)}
    commit = hub.commit("team/model", parts | {"q8.gguf": b"q" * 3000})

    for file, expected in (("q8.gguf", {"q8.gguf"}), ("q4-00001-of-00002.gguf", set(parts))):
        uri = f"hf://team/model/{file}@main"
        assert {"digest": commit} == run(order(hub, shared, uri, commit))
        assert expected == set(files_in(place(shared, commit, uri).final))


def test_a_branch_that_moves_changes_nothing_for_who_has_its_commit(hub: HubServer, shared: Path) -> None:
    first = hub.commit("team/model", {WEIGHTS: b"1" * 5000})
    second = hub.commit("team/model", {WEIGHTS: b"2" * 5000})

    assert {"digest": second} == run(order(hub, shared))
    run(order(hub, shared, digest=first))

    assert {WEIGHTS: b"1" * 5000} == files_in(place(shared, first).final)


def test_a_cut_connection_is_taken_up_where_it_was(hub: HubServer, shared: Path) -> None:
    commit = hub.commit("team/model", {WEIGHTS: LARGE})
    hub.faults.append(Fault(path=WEIGHTS, after=22 * MB))

    assert {"digest": commit} == run(order(hub, shared, digest=commit))

    assert LARGE == (place(shared, commit).final / WEIGHTS).read_bytes()
    first, second = hub.bodies("/storage/")
    assert "" == first.range
    assert int(second.range.removeprefix("bytes=").rstrip("-")) >= 10 * MB


@pytest.mark.parametrize("way", ["SIGKILL", "SIGTERM", "its controller is gone"])
def test_a_stager_that_ends_leaves_what_it_has_for_the_next(hub: HubServer, shared: Path, way: str) -> None:
    commit = hub.commit("team/model", {"config.json": b"{}", WEIGHTS: LARGE})
    held = Fault(path=WEIGHTS, after=22 * MB, go=threading.Event())
    hub.faults.append(held)

    with StagerProcess(order(hub, shared, digest=commit)) as first:
        assert held.reached.wait(30)
        _wait_for_bytes(place(shared, commit).work, 20 * MB)
        if way == "its controller is gone":
            assert first.process.stdin is not None
            first.process.stdin.close()
        else:
            first.process.send_signal(getattr(signal, way))
        assert 0 != first.process.wait(30)
    assert place(shared, commit).lock.exists() == (way == "SIGKILL")
    assert not place(shared, commit).final.exists()
    hub.asked.clear()

    assert {"digest": commit} == run(order(hub, shared, digest=commit))

    assert {"config.json": b"{}", WEIGHTS: LARGE} == files_in(place(shared, commit).final)
    (again,) = hub.bodies("/storage/")
    assert int(again.range.removeprefix("bytes=").rstrip("-")) >= 20 * MB
    assert [] == hub.bodies("config.json")
    assert [] == left_over(shared)


def test_of_two_stagers_one_fetches_and_the_other_waits(hub: HubServer, shared: Path) -> None:
    commit = hub.commit("team/model", {WEIGHTS: LARGE})
    held = Fault(path=WEIGHTS, after=22 * MB, go=threading.Event())
    hub.faults.append(held)

    with StagerProcess(order(hub, shared, digest=commit)) as first:
        assert held.reached.wait(30)
        with StagerProcess(order(hub, shared, digest=commit)) as second:
            second.until("Waiting")
            assert held.go is not None
            held.go.set()
            assert {"digest": commit} == first.result() == second.result()
    assert 1 == len(hub.bodies("/storage/"))
    assert LARGE == (place(shared, commit).final / WEIGHTS).read_bytes()


def test_the_waiting_one_goes_on_when_the_other_is_killed(hub: HubServer, shared: Path) -> None:
    commit = hub.commit("team/model", {WEIGHTS: LARGE})
    held = Fault(path=WEIGHTS, after=22 * MB, go=threading.Event())
    hub.faults.append(held)

    with StagerProcess(order(hub, shared, digest=commit)) as first:
        assert held.reached.wait(30)
        with StagerProcess(order(hub, shared, digest=commit)) as second:
            second.until("Waiting")
            first.process.kill()
            first.process.wait()
            assert {"digest": commit} == second.result()
    assert LARGE == (place(shared, commit).final / WEIGHTS).read_bytes()


def test_a_holder_on_another_machine_that_is_silent_is_followed(hub: HubServer, shared: Path) -> None:
    """Its number says nothing here: only that nothing moves, on our own clock."""
    commit = hub.commit("team/model", {WEIGHTS: b"w" * 5000})
    away = place(shared, commit)
    far = lock.Owner(token="far", host="login2", machine="another boot", pid=1, started=1)
    assert lock.Lock(away.lock, far).take()
    away.work.mkdir()
    (away.work / "rest").write_bytes(b"of its work")

    with StagerProcess(order(hub, shared, digest=commit), hasty=True) as stager:
        stager.until("Waiting")
        assert {"digest": commit} == stager.result()
    assert [] == left_over(shared)


def test_a_stager_that_was_taken_for_dead_ends_when_it_comes_back(hub: HubServer, shared: Path) -> None:
    commit = hub.commit("team/model", {WEIGHTS: LARGE})
    held = Fault(path=WEIGHTS, after=22 * MB, go=threading.Event())
    hub.faults.append(held)
    with StagerProcess(order(hub, shared, digest=commit), hasty=True) as first:
        assert held.reached.wait(30)
        # Somebody else holds the lock from now on.
        away = place(shared, commit).lock
        away.rename(away.with_name("elsewhere"))
        far = lock.Owner(token="far", host="login2", machine="another boot", pid=1, started=1)
        assert lock.Lock(away, far).take()
        assert 75 == first.process.wait(30)
    assert far == lock.Lock(away, far).look().owner  # type: ignore[union-attr]
    assert not place(shared, commit).final.exists()


@pytest.mark.parametrize("size", [100, 5000], ids=["small", "large"])
def test_content_with_another_checksum_is_refused_and_not_kept(
    hub: HubServer, shared: Path, size: int
) -> None:
    commit = hub.commit("team/model", {"good": b"g", "bad": b"b" * size})
    hub.damaged["bad"] = b"e" * size

    result = run(order(hub, shared, digest=commit))

    assert "WrongDigest" == result["reason"]
    assert "bad arrives with another content than the hub's checksum" in result["error"]
    assert not place(shared, commit).final.exists()
    assert 2 == len(hub.bodies("/bad"))

    hub.damaged.clear()
    assert {"digest": commit} == run(order(hub, shared, digest=commit))
    assert b"b" * size == (place(shared, commit).final / "bad").read_bytes()


def test_damage_on_this_side_is_repaired(hub: HubServer, shared: Path) -> None:
    """A part of an earlier attempt that a crash of the machine has filled with something else."""
    commit = hub.commit("team/model", {WEIGHTS: LARGE})
    held = Fault(path=WEIGHTS, after=22 * MB, go=threading.Event())
    hub.faults.append(held)
    with StagerProcess(order(hub, shared, digest=commit)) as first:
        assert held.reached.wait(30)
        _wait_for_bytes(place(shared, commit).work, 20 * MB)
        first.process.kill()
        first.process.wait()
    (part,) = place(shared, commit).work.rglob("*.incomplete")
    with part.open("r+b") as file:
        file.write(b"\0" * 1000)

    assert {"digest": commit} == run(order(hub, shared, digest=commit))
    assert LARGE == (place(shared, commit).final / WEIGHTS).read_bytes()


def test_what_cannot_fit_is_refused_with_figures_before_it_is_fetched(hub: HubServer, shared: Path) -> None:
    commit = hub.commit("team/model", {WEIGHTS: LARGE})

    result = run(order(hub, shared, digest=commit), within=small_disk(shared, "20m"))

    assert "NoSpace" == result["reason"]
    assert "needs at least 26.2 MB more in" in result["error"]
    assert "21.0 MB are free" in result["error"]
    assert [] == hub.bodies("/storage/")


def test_a_disk_that_fills_up_meanwhile_is_told_with_figures(hub: HubServer, shared: Path) -> None:
    commit = hub.commit("team/model", {WEIGHTS: LARGE})
    held = Fault(path=WEIGHTS, after=22 * MB, go=threading.Event())
    hub.faults.append(held)

    with StagerProcess(order(hub, shared, digest=commit), within=small_disk(shared, "30m")) as stager:
        assert held.reached.wait(30)
        disk = Path(f"/proc/{stager.process.pid}/root{shared}")
        _wait_for_bytes(disk, 20 * MB)
        with pytest.raises(OSError), (disk / "others").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        assert held.go is not None
        held.go.set()
        result = stager.result()

    assert "NoSpace" == result["reason"]
    assert "No space left on device" in result["error"]
    assert "21.0 MB were fetched to" in result["error"]
    assert re.search(r"and \d+(\.\d)? k?B are free", result["error"])


def test_who_may_not_read_is_told_what_to_do(hub: HubServer, shared: Path, tmp_path: Path) -> None:
    commit = hub.commit("team/private", {WEIGHTS: b"w" * 5000})
    hub.tokens["team/private"] = "hf_right"
    hub.commit("team/gated", {WEIGHTS: b"w" * 5000})
    hub.gated.add("team/gated")
    secret = tmp_path / "hf.env"
    secret.write_text("# for the hub\nOTHER=x\nHF_TOKEN=hf_right\n")
    secret.chmod(0o600)

    def told(uri: str, **more: Any) -> tuple[str, str]:
        result = run(order(hub, shared, uri, **more))
        return result.get("reason", ""), result.get("error", "")

    reason, words = told("hf://team/private@main")
    assert "Forbidden" == reason
    assert "write HF_TOKEN=... into a file of spec.envFrom" in words
    reason, words = told("hf://team/gated@main", secret_files=(str(secret),))
    assert "Forbidden" == reason
    assert "hf://team/gated@main is gated: accept its terms on its page" in words
    reason, words = told("hf://team/nothing@main", secret_files=(str(secret),))
    assert "NotFound" == reason

    secret_order = order(hub, shared, "hf://team/private@main", secret_files=(str(secret),))
    assert {"digest": commit} == run(secret_order)
    assert "hf_right" not in secret_order.dump()
    given = [each.authorization for each in hub.asked if each.path.startswith("/api/models/team/private")]
    assert ["", "Bearer hf_right"] == given
    staged = order(hub, shared, "hf://team/private@main", commit, secret_files=(str(secret),))
    assert {"digest": commit} == run(staged)  # the storage refuses credentials that are not its own

    secret.chmod(0o644)
    assert (
        f"the secret file {secret} is open to others: chmod 600 {secret}"
        == told("hf://team/private@main", secret_files=(str(secret),))[1]
    )


def test_what_is_not_there_is_told(hub: HubServer, shared: Path) -> None:
    commit = hub.commit("team/model", {"a.gguf": b"a" * 2000, "b.gguf": b"b" * 2000})

    result = run(order(hub, shared, "hf://team/model/c.gguf@main", commit))
    assert "NotFound" == result["reason"]
    assert "the repository has no file c.gguf; it has a.gguf, b.gguf" in result["error"]
    result = run(order(hub, shared, "hf://team/model@v9"))
    assert ("NotFound", True) == (result["reason"], "has no revision v9" in result["error"])


def test_a_hub_that_does_not_answer_is_asked_again_later(hub: HubServer, shared: Path) -> None:
    commit = hub.commit("team/model", {WEIGHTS: b"w" * 5000})
    hub.is_down = True
    for digest in ("", commit):
        result = run(order(hub, shared, digest=digest))
        assert "" == result["reason"]
        assert "answers 503" in result["error"]
    nobody = Order(reference="hf://team/model@main", shared_dir=str(shared), endpoint="http://127.0.0.1:9")
    result = run(nobody)
    assert "" == result["reason"]
    assert "127.0.0.1" in result["error"]


def _wait_for_bytes(folder: Path, size: int) -> None:
    wait_for(f"{size} bytes in {folder}", lambda: layout.bytes_in(folder) >= size, timeout=30)
