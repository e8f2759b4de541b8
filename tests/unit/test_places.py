"""The shared directory of a cluster: made usable, kept usable, cleaned, and never believed blindly."""

import asyncio
import json
import os
import shutil
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

import llmop.agent
from llmop import daemon
from llmop.cluster import file_threads
from llmop.domain import errors, replica, resources, site
from llmop.reconciler import codec, shared
from llmop.store import interface
from llmop.testing import builders, memory_store

OWNER = resources.Resource(
    kind=resources.MODEL_DEPLOYMENT, name=builders.DEPLOYMENT, namespace="default", uid="d"
)
URL = "https://10.0.0.1:7443"
END: dict[str, Any] = {"reason": "Drained", "endedAt": 1_760_000_000, "exitCode": 0, "logTail": ["bye"]}


@pytest.fixture
def where(tmp_path: Path) -> site.Site:
    return site.Site(name="main", driver=site.DriverKind.SLURM, shared_dir=str(tmp_path / "shared"))


@pytest.fixture
def places() -> daemon.Places:
    made = daemon.Places(memory_store.MemoryStore(), "k3v9qd", "the CA")
    made.urls = (URL,)
    return made


async def test_a_shared_directory_is_private_and_says_where_the_controller_is(
    where: site.Site, places: daemon.Places
) -> None:
    made = await places.install(where)
    root = Path(where.shared_dir)
    assert Path(llmop.agent.__file__).with_name("agent.py").read_bytes() == Path(made.agent).read_bytes()
    said = json.loads((root / "controllers.json").read_text())
    assert {"version": 1, "urls": [URL], "authority": shared.fingerprint("the CA")} == said
    assert {0o700} == {stat.S_IMODE((root / part).stat().st_mode) for part in (".", *shared.PARTS)}


@pytest.mark.parametrize("lost", ["agent", "controllers.json", "claims", "."])
async def test_what_a_purge_has_deleted_comes_back(
    where: site.Site, places: daemon.Places, lost: str
) -> None:
    first = await places.install(where)
    gone = Path(where.shared_dir) / lost
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    assert first == await places.install(where)
    assert Path(first.agent).exists()
    assert gone.exists()
    assert (Path(where.shared_dir) / "controllers.json").exists()


@pytest.mark.parametrize("part", [".", *shared.GUARDED])
@pytest.mark.parametrize("mode", [0o770, 0o707])
async def test_nothing_is_run_from_where_others_can_write(
    where: site.Site, places: daemon.Places, part: str, mode: int
) -> None:
    """Also when it was private at first."""
    await places.install(where)
    (Path(where.shared_dir) / part).chmod(mode)
    with pytest.raises(PermissionError, match=r"others can change .* chmod go-w"):
        await places.install(where)
    (Path(where.shared_dir) / part).chmod(0o750)
    await places.install(where)


async def test_two_installations_do_not_share_a_directory_in_which_one_has_a_replica(
    where: site.Site, places: daemon.Places
) -> None:
    """The agents would look for their controller where the other one has written."""
    others = daemon.Places(memory_store.MemoryStore(), "zzzzzz", "another CA")
    others.urls = ("https://10.0.0.2:7443",)
    root = Path(where.shared_dir)
    await places.install(where)
    await others.install(where)
    await places.install(where)  # nobody lives here yet: the one that comes last has it
    await shared.DiskDirectory(root).prepare("chat-x7k2p", {"installation": "k3v9qd"})
    with pytest.raises(FileExistsError, match=r"installation k3v9qd has the replica chat-x7k2p here"):
        await others.install(where)
    assert [URL] == json.loads((root / "controllers.json").read_text())["urls"]
    await places.install(where)
    (root / "replicas/chat-x7k2p/exit.json").write_text(json.dumps(END))
    await others.install(where)


async def test_a_team_may_write_models_and_images(where: site.Site, places: daemon.Places) -> None:
    await places.install(where)
    for part in ("models", "images"):
        (Path(where.shared_dir) / part).chmod(0o770)
    await places.install(where)


async def test_a_part_that_somebody_has_planted_is_refused(
    where: site.Site, places: daemon.Places, tmp_path: Path
) -> None:
    root = Path(where.shared_dir)
    root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (root / "replicas").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="replicas is a symbolic link"):
        await places.install(where)
    (root / "replicas").unlink()
    await places.install(where)


async def test_a_directory_of_somebody_else_is_refused(
    where: site.Site, places: daemon.Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    await places.install(where)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(PermissionError, match=rf"belongs to user id {owner}, not to you") as refused:
        await places.install(where)
    assert str(refused.value.filename) == where.shared_dir


async def test_a_directory_that_cannot_be_made_is_an_os_error(places: daemon.Places, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    bad = site.Site(name="main", driver=site.DriverKind.SLURM, shared_dir=str(tmp_path / "file" / "shared"))
    with pytest.raises(OSError, match="file"):
        await places.install(bad)


@pytest.mark.parametrize("levels", ["project", "project/nlp"])
async def test_nothing_is_made_above_the_shared_directory(
    places: daemon.Places, tmp_path: Path, levels: str
) -> None:
    """Its file system may not be mounted: what was made would lie below the mount point."""
    root = tmp_path / levels / "llmop"
    where = site.Site(name="main", driver=site.DriverKind.SLURM, shared_dir=str(root))
    with pytest.raises(
        FileNotFoundError, match=f"^.Errno 2. {tmp_path}/project is not there: mount its file system"
    ):
        await places.install(where)
    assert [] == list(tmp_path.iterdir())
    root.parent.mkdir(parents=True)
    await places.install(where)


async def run_one(store: memory_store.MemoryStore, where: site.Site, **submission: Any) -> replica.Replica:
    one = builders.a_replica(1, cluster=where.name, submission_changes=submission)
    ledger = interface.Ledger(
        replica_uid=one.uid,
        namespace=one.namespace,
        replica_name=one.name,
        cluster=one.cluster,
        submission=one.submission,
        secrets=interface.Secrets(api_key="key", agent_token="token"),
    )
    await store.commit([interface.Create(resource=codec.new_replica(one, OWNER), ledger=ledger)])
    return one


@pytest.mark.parametrize("lost", ["replicas", "."])
@pytest.mark.parametrize("restarted", [False, True])
async def test_what_has_vanished_is_not_remade_while_replicas_run(
    where: site.Site, tmp_path: Path, lost: str, restarted: bool
) -> None:
    """Also by a controller that was started since; who says that it is gone for good makes the place himself."""
    store, root = memory_store.MemoryStore(), Path(where.shared_dir)
    places = daemon.Places(store, "k3v9qd", "the CA")
    await places.install(where)
    one = await run_one(store, where)
    shutil.rmtree(root / lost)
    if restarted:
        places = daemon.Places(store, "k3v9qd", "the CA")
    with pytest.raises(FileNotFoundError, match=rf"{root}/replicas has vanished, .* \({one.name}\): mount"):
        await places.install(where)
    assert not (root / lost).exists()
    (root / "replicas").mkdir(mode=0o700, parents=True)
    await places.install(where)


@pytest.mark.parametrize(
    "submission", [{"state": replica.SubmissionState.ENDED}, {"job_id": None}], ids=["ended", "no job"]
)
async def test_what_has_vanished_is_remade_where_no_replica_runs(
    where: site.Site, submission: dict[str, Any]
) -> None:
    store = memory_store.MemoryStore()
    places = daemon.Places(store, "k3v9qd", "the CA")
    await places.install(where)
    await run_one(store, where, **submission)
    shutil.rmtree(where.shared_dir)
    await places.install(where)


async def test_a_store_that_is_away_remakes_nothing(
    where: site.Site, places: daemon.Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(self: object, replica_uids: object = None) -> tuple[interface.Ledger, ...]:
        raise errors.Unavailable("it is away")

    monkeypatch.setattr(memory_store.MemoryStore, "ledgers", away)
    with pytest.raises(OSError, match="the store does not say whether replicas run: it is away"):
        await places.install(where)
    assert not Path(where.shared_dir).exists()


async def test_a_directory_that_hangs_is_an_os_error_in_time(
    where: site.Site, places: daemon.Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    await places.install(where)
    hangs = threading.Event()
    monkeypatch.setattr(file_threads, "PATIENCE_S", 0.1)
    monkeypatch.setattr(shared.DiskDirectory, "is_complete", lambda *_: hangs.wait())
    try:
        with pytest.raises(OSError, match="does not answer within"):
            await places.install(where)
    finally:
        hangs.set()


async def test_a_death_record_that_hangs_is_an_os_error_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_threads, "PATIENCE_S", 0.1)
    record = tmp_path / "replicas" / "chat-1" / "exit.json"
    record.parent.mkdir(parents=True)
    os.mkfifo(record)
    try:
        with pytest.raises(OSError, match="does not answer within"):
            await shared.DiskDirectory(tmp_path).read_end("chat-1")
    finally:
        record.open("w").close()  # its reader goes on


async def test_working_directories_that_take_long_to_remove_keep_nobody_from_a_replica_of_his_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = shared.DiskDirectory(tmp_path)
    removed, begun = threading.Event(), threading.Event()

    def removes(_path: Path) -> None:
        begun.set()
        removed.wait()

    for number in range(3):
        (tmp_path / f"replicas/chat-{number}/scratch").mkdir(parents=True)
    monkeypatch.setattr(shared.shutil, "rmtree", removes)
    clearing = [asyncio.create_task(directory.clear(f"chat-{number}")) for number in range(3)]
    await asyncio.to_thread(begun.wait)
    monkeypatch.setattr(file_threads, "PATIENCE_S", 5.0)
    try:
        await directory.prepare("chat-new", {})
    finally:
        removed.set()
    assert [0, 0, 0] == await asyncio.gather(*clearing)


async def read(root: Path, content: bytes) -> replica.End | None:
    directory = root / "replicas" / "chat-1"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "exit.json").write_bytes(content)
    return await shared.DiskDirectory(root).read_end("chat-1")


async def test_a_death_record_is_read(tmp_path: Path) -> None:
    end = await read(tmp_path, json.dumps(END).encode())
    assert end is not None
    assert (replica.EndReason.DRAINED, ("bye",)) == (end.reason, end.log_tail)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff",
        b"[" * 100_000,
        b" " * (shared.END_LIMIT + 1),
        *(
            json.dumps({**END, **change}).encode()
            for change in (
                {"reason": "Bored"},
                {"reason": []},
                {"endedAt": float("nan")},
                {"endedAt": 10**400},
                {"exitCode": {}},
                {"logTail": 5},
            )
        ),
    ],
)
async def test_a_record_that_is_none_says_nothing(tmp_path: Path, content: bytes) -> None:
    assert await read(tmp_path, content) is None
    assert await shared.DiskDirectory(tmp_path).read_end("another") is None


async def test_only_what_is_ours_and_forgotten_is_cleaned(tmp_path: Path) -> None:
    directory = shared.DiskDirectory(tmp_path)
    jobs = ("llmop-k3v9qd-chat-1-00000001", "llmop-k3v9qd-chat-2-00000002", "llmop-other1-chat-2-00000002")
    (tmp_path / "claims").mkdir()
    (tmp_path / "replicas").mkdir()
    # What killed agents have left, or an agent that makes its claim at this moment is about to link.
    drafts = tuple(f"{job}.n1.example.org.4711.tmp" for job in jobs)
    for job in (*jobs, *drafts, "notes", "notes.tmp"):
        (tmp_path / "claims" / job).touch()
    (tmp_path / "claims" / "llmop-k3v9qd-chat-3-00000003").mkdir()  # nobody's idea, but no reason to fail
    for name, installation in (("chat-1", "k3v9qd"), ("chat-2", "k3v9qd"), ("chat-3", "other1")):
        await directory.prepare(name, {"installation": installation})
    (tmp_path / "replicas" / "notes").mkdir()
    found = directory.entries()
    await directory.prepare("chat-4", {"installation": "k3v9qd"})  # made since: nothing is known of it yet
    for name in ("chat-1", "chat-3", "chat-4"):
        (tmp_path / "replicas" / name / "scratch" / "run" / "home").mkdir(parents=True)
    remembered = frozenset({"chat-1", "chat-5"})  # chat-5 has no directory
    directory.sweep(found, "k3v9qd", remembered, frozenset({jobs[0]}), ended=remembered)
    assert {"chat-1", "chat-3", "chat-4", "notes"} == {
        path.name for path in (tmp_path / "replicas").iterdir()
    }
    assert {"chat-3", "chat-4"} == {path.parts[-2] for path in tmp_path.glob("replicas/*/scratch")}
    left = {path.name for path in (tmp_path / "claims").iterdir()}
    kept = {jobs[0], jobs[2], drafts[0], drafts[2], "notes", "notes.tmp", "llmop-k3v9qd-chat-3-00000003"}
    assert kept == left
