"""Images from a registry: pulled by Apptainer, pinned, resumed by layers, refused. Real stagers, a registry on loopback."""

from __future__ import annotations

import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.rigs.loopback import Fault
from tests.rigs.processes import wait_for
from tests.rigs.registry import RegistryServer
from tests.rigs.stagers import StagerProcess, run, small_disk

from llmop.artifacts import layout
from llmop.artifacts.order import Order
from llmop.domain import artifact

MB = 1024 * 1024


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    registry = RegistryServer()
    with registry.running():
        yield registry


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A file system with one program, which needs no library, and two files that cannot be compressed."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("first", "second"):
        (tree / name).write_bytes(random.Random(name).randbytes(2 * MB))
    return tree


def order(
    registry: RegistryServer,
    shared: Path,
    digest: str = "",
    name: str = "docker://{}/team/engine:1.0",
    **more: Any,
) -> Order:
    reference = name.format(registry.address)
    return Order(
        reference=reference, digest=digest, shared_dir=str(shared), insecure=(registry.address,), **more
    )


def place(shared: Path, wanted: Order) -> layout.Place:
    return layout.place(shared, artifact.entry(artifact.parse(wanted.reference), wanted.digest))


def files_of(image: Path, folder: Path) -> dict[str, bytes]:
    """Unpacks a SIF and returns the two files."""
    subprocess.run(
        ["apptainer", "--quiet", "build", "--sandbox", str(folder), str(image)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return {name: (folder / name).read_bytes() for name in ("first", "second")}


def left_over(shared: Path) -> list[str]:
    return [str(each) for each in (shared / "images/.staging").rglob("*")]


def test_an_image_arrives_and_nothing_else_is_left(
    registry: RegistryServer, shared: Path, tree: Path, tmp_path: Path
) -> None:
    digest = registry.push("team/engine", "1.0", tree)

    assert {"digest": digest} == run(order(registry, shared))
    wanted = order(registry, shared, digest)
    assert {"digest": digest} == run(wanted)

    found = place(shared, wanted)
    assert f"{digest.removeprefix('sha256:')}.sif" == found.final.name
    assert {name: (tree / name).read_bytes() for name in ("first", "second")} == files_of(
        found.final, tmp_path / "out"
    )
    assert found.final.stat().st_size == layout.read_json(found.facts)["size"]
    assert [] == left_over(shared)
    assert not (shared / "models").exists() or [] == list((shared / "models").rglob("*"))


def test_a_tag_that_moves_changes_nothing_for_who_has_its_digest(
    registry: RegistryServer, shared: Path, tree: Path, tmp_path: Path
) -> None:
    before = registry.push("team/engine", "1.0", tree)
    old = (tree / "first").read_bytes()
    (tree / "first").write_bytes(b"new")
    after = registry.push("team/engine", "1.0", tree)

    assert {"digest": after} == run(order(registry, shared))
    wanted = order(registry, shared, before)
    run(wanted)
    assert old == files_of(place(shared, wanted).final, tmp_path / "out")["first"]


@pytest.mark.parametrize("is_docker", [False, True], ids=["OCI media types", "Docker media types"])
def test_a_killed_stager_is_taken_up_in_the_middle_of_a_layer(
    registry: RegistryServer, shared: Path, tree: Path, is_docker: bool, tmp_path: Path
) -> None:
    digest = registry.push("team/engine", "1.0", tree, layers=2, is_docker=is_docker)
    wanted = order(registry, shared, digest)
    held = Fault(path=registry.largest_blob(), after=1 * MB, go=threading.Event())
    registry.faults.append(held)
    with StagerProcess(wanted) as stager:
        assert held.reached.wait(30)
        blobs = place(shared, wanted).work / "layout/blobs/sha256"
        part = blobs / f"{registry.largest_blob().removeprefix('sha256:')}.part"
        wait_for("a part of the layer", lambda: part.exists() and part.stat().st_size == MB, timeout=30)
        stager.process.kill()
        stager.process.wait()
    assert not place(shared, wanted).final.exists()
    assert held.go is not None
    held.go.set()
    registry.asked.clear()

    assert {"digest": digest} == run(wanted)

    again = registry.bodies(registry.largest_blob())
    assert ["bytes=1048576-"] == [each.range for each in again]
    assert {name: (tree / name).read_bytes() for name in ("first", "second")} == files_of(
        place(shared, wanted).final, tmp_path / "out"
    )
    assert [] == left_over(shared)


def test_a_killed_build_fetches_nothing_again(registry: RegistryServer, shared: Path, tree: Path) -> None:
    digest = registry.push("team/engine", "1.0", tree)
    wanted = order(registry, shared, digest)
    with StagerProcess(wanted) as stager:
        stager.until("Building")
        stager.process.kill()
        stager.process.wait()
    registry.asked.clear()

    assert {"digest": digest} == run(wanted)
    assert [] == registry.bodies("/blobs/")
    assert [] == left_over(shared)


def test_a_cut_connection_is_taken_up_where_it_was(
    registry: RegistryServer, shared: Path, tree: Path
) -> None:
    digest = registry.push("team/engine", "1.0", tree)
    registry.faults.append(Fault(path=registry.largest_blob(), after=1 * MB))

    assert {"digest": digest} == run(order(registry, shared, digest))
    assert ["", "bytes=1048576-"] == [each.range for each in registry.bodies(registry.largest_blob())]


def test_a_damaged_layer_is_refused(registry: RegistryServer, shared: Path, tree: Path) -> None:
    digest = registry.push("team/engine", "1.0", tree)
    registry.damage_largest_blob()

    result = run(order(registry, shared, digest))

    assert "WrongDigest" == result["reason"], result
    assert "arrives with another content, twice" in result["error"]
    assert [] == list(shared.glob("images/*.sif"))


def test_a_manifest_with_another_digest_is_refused(
    registry: RegistryServer, shared: Path, tree: Path
) -> None:
    registry.push("team/engine", "1.0", tree)
    wanted = "sha256:" + 64 * "0"
    registry.lie_about("team/engine", wanted, "1.0")

    result = run(order(registry, shared, wanted))

    assert "WrongDigest" == result["reason"], result
    assert f"for {wanted}; it is damaged or was tampered with" in result["error"]


def test_what_is_not_there_and_what_is_not_allowed(
    registry: RegistryServer, shared: Path, tree: Path, tmp_path: Path
) -> None:
    digest = registry.push("team/engine", "1.0", tree)
    result = run(order(registry, shared, name="docker://{}/team/engine:2.0"))
    assert ("NotFound", True) == (result["reason"], "has no image docker://" in result["error"])

    registry.account = ("robot", "swordfish")
    result = run(order(registry, shared))
    assert "Forbidden" == result["reason"]
    assert "give DOCKER_USERNAME and DOCKER_PASSWORD in a file of spec.envFrom" in result["error"]

    secret = tmp_path / "registry.env"
    secret.write_text("DOCKER_USERNAME=robot\nDOCKER_PASSWORD=swordfish\n")
    secret.chmod(0o600)
    assert {"digest": digest} == run(order(registry, shared, secret_files=(str(secret),)))
    held = Fault(path="/blobs/", after=1 * MB, go=threading.Event())
    registry.faults.append(held)
    with StagerProcess(order(registry, shared, digest, secret_files=(str(secret),))) as stager:
        assert held.reached.wait(30)
        shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert "llmop.artifacts.worker" in shown
        assert "swordfish" not in shown
        assert held.go is not None
        held.go.set()
        assert {"digest": digest} == stager.result()


def test_an_image_that_was_pushed_as_a_sif(
    registry: RegistryServer, shared: Path, tree: Path, tmp_path: Path
) -> None:
    image = tmp_path / "engine.sif"
    subprocess.run(
        ["apptainer", "--quiet", "build", str(image), str(tree)], check=True, capture_output=True, timeout=60
    )
    digest = registry.push_sif("team/sif", "1.0", image)
    name = "oras://{}/team/sif:1.0"

    assert {"digest": digest} == run(order(registry, shared, name=name))
    wanted = order(registry, shared, digest, name)
    assert {"digest": digest} == run(wanted)
    assert image.read_bytes() == place(shared, wanted).final.read_bytes()


def test_a_disk_that_is_too_small(registry: RegistryServer, shared: Path, tree: Path) -> None:
    digest = registry.push("team/engine", "1.0", tree)

    result = run(order(registry, shared, digest), within=small_disk(shared, "3m"))
    assert "NoSpace" == result["reason"]
    assert "needs at least 4.2 MB more in" in result["error"]

    result = run(order(registry, shared, digest), within=small_disk(shared, "6m"))
    assert "NoSpace" == result["reason"], result
    assert "were fetched to" in result["error"]


def test_images_are_unpacked_where_the_cluster_says(
    registry: RegistryServer, shared: Path, tree: Path, tmp_path: Path
) -> None:
    digest = registry.push("team/engine", "1.0", tree)
    local = tmp_path / "local"
    local.mkdir()

    result = run(order(registry, shared, digest, tmp_dir=str(local)), within=small_disk(local, "1m"))
    assert "NoSpace" == result["reason"], result
    assert {"digest": digest} == run(order(registry, shared, digest, tmp_dir=str(local)))
    assert [] == list(local.iterdir())


def test_without_apptainer_and_with_singularity(
    registry: RegistryServer, shared: Path, tree: Path, tmp_path: Path
) -> None:
    digest = registry.push("team/engine", "1.0", tree)
    empty = tmp_path / "bin"
    empty.mkdir()

    result = run(order(registry, shared, digest), path=str(empty))
    assert ("Unsupported", True) == (result["reason"], "neither apptainer nor singularity" in result["error"])

    apptainer = shutil.which("apptainer")
    (empty / "singularity").write_text(
        f'#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin exec {apptainer} "$@"\n'
    )
    (empty / "singularity").chmod(0o755)
    (empty / "sh").symlink_to("/bin/sh")
    assert {"digest": digest} == run(order(registry, shared, digest), path=str(empty))
