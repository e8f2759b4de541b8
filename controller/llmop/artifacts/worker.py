"""The stager: a process that resolves or stages one artifact and tells how it goes on its standard output.

Beside a controller it lives as long as its standard input is open: when the controller goes, however, it goes too, and the next one
continues where it was. In a Slurm job of its own it goes on without a controller.
Every step may be the last one. What is finished appears by one rename; what is not is taken up again from the work directory.
"""

import contextlib
import datetime
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from llmop.artifacts import container, hub, layout, order, registry, secret, selection
from llmop.clock import Clock, SystemClock
from llmop.domain import artifact, staging
from llmop.domain.errors import LlmopError, NeedsUser, Unavailable
from llmop.files import lock

POLL_S = 1.0
ENDED = 75  # sysexits.h: EX_TEMPFAIL
NICENESS = 10  # login nodes are shared
IN_JOB = "--job"


class Stager:
    """Carries out one order; how it goes is written to standard output."""

    def __init__(self, wanted: order.Order, clock: Clock) -> None:
        self._order = wanted
        self._clock = clock
        self._reference = artifact.parse(wanted.reference)
        self._me = lock.myself()
        self._step = staging.Progress(step=staging.Step.RESOLVING)
        self._watched: Path | None = None  # its size is the progress
        self._said = ""
        self._speech = threading.Lock()
        self._held: lock.Lock | None = None
        self._builder: container.Builder | None = None

    @property
    def home(self) -> Path:
        """For caches of the hub's library. It goes with the work directory."""
        if not self._order.digest:
            return Path(self._order.shared_dir) / layout.MODELS / layout.STAGING / "home"
        return self._place.work / "home"

    @property
    def is_finished(self) -> bool:
        """Whether what is to be staged is there."""
        return self._place.final.exists()

    @property
    def _place(self) -> layout.Place:
        entry = artifact.entry(self._reference, self._order.digest)
        return layout.place(Path(self._order.shared_dir), entry)

    def run(self) -> str:
        """The digest. Raises NeedsUser or Unavailable."""
        credentials = secret.read([Path(path) for path in self._order.secret_files])
        if not self._order.digest:
            return self._reference.pinned or self._resolve(credentials)
        place = self._place
        try:
            layout.require(Path(self._order.shared_dir))
            with self._turn(place):
                if not self.is_finished:
                    place.work.mkdir(mode=0o700, parents=True, exist_ok=True)
                    self._stage(place, credentials)
        except OSError as error:
            raise _of_disk(error, self._reference, place) from error
        except NeedsUser as error:
            raise _with_space(error, place) from error
        return self._order.digest

    def stop(self) -> NoReturn:
        """Now, from any thread: what was started ends, the lock goes, the work stays."""
        if self._builder is not None:
            self._builder.kill()
        if self._held is not None:
            with contextlib.suppress(OSError):
                self._held.release()
        os._exit(ENDED)

    # What is there

    def _resolve(self, credentials: dict[str, str]) -> str:
        if self._reference.kind is artifact.Kind.MODEL:
            return self._hub(credentials).commit()
        return self._registry(credentials).digest_of(self._reference.version)

    def _hub(self, credentials: dict[str, str]) -> hub.Hub:
        return hub.Hub(self._reference, self._order.endpoint, secret.hub_token(credentials))

    def _registry(self, credentials: dict[str, str]) -> registry.Registry:
        return registry.Registry(
            self._reference,
            insecure=frozenset(self._order.insecure),
            user=credentials.get(secret.REGISTRY_USER, ""),
            password=credentials.get(secret.REGISTRY_PASSWORD, ""),
        )

    # Whose turn it is

    @contextlib.contextmanager
    def _turn(self, place: layout.Place) -> Iterator[None]:
        """Holds the lock, or nothing when the artifact is there, be it because another one has finished it meanwhile."""
        held = lock.Lock(place.lock, self._me)
        watch: tuple[lock.Seen | None, float] = (None, 0.0)
        waited = 0.0
        while not self.is_finished:
            if held.take():
                break
            seen = held.look()
            if seen is None:
                continue
            watch = (seen, waited) if seen != watch[0] else watch
            if held.is_gone(seen, waited - watch[1]):
                held.bury(seen)
                continue
            self._say(staging.Progress(step=staging.Step.WAITING))
            threading.Event().wait(POLL_S)
            waited += POLL_S
        else:
            yield
            return
        self._held = held
        held.sweep()
        over = threading.Event()
        threading.Thread(target=self._beat, args=(held, over), daemon=True).start()
        try:
            yield
        finally:
            over.set()
            self._held = None
            with contextlib.suppress(OSError):
                held.release()

    def _beat(self, held: lock.Lock, over: threading.Event) -> None:
        """Says that we live, and how far we are. One that has lost its turn ends: somebody else is at work here."""
        beats = 0
        while not over.wait(POLL_S):
            self._say(self._step)
            beats += 1
            if beats * POLL_S >= lock.HEARTBEAT_S:
                beats = 0
                with contextlib.suppress(OSError):
                    if not held.touch() and not over.is_set():
                        self.stop()

    def _say(self, seen: staging.Progress) -> None:
        done = min(layout.bytes_in(self._watched), seen.total) if self._watched and seen.total else seen.done
        line = order.progress_line(staging.Progress(step=seen.step, done=done, total=seen.total))
        with self._speech:
            if line != self._said:
                self._said = line
                _write(line)

    def _is_at(self, step: staging.Step, total: int = 0, watched: Path | None = None) -> None:
        self._step, self._watched = staging.Progress(step=step, total=total), watched
        self._say(self._step)

    # Staging

    def _stage(self, place: layout.Place, credentials: dict[str, str]) -> None:
        if self._reference.kind is artifact.Kind.MODEL:
            made, count = self._fetch_model(place, credentials)
        else:
            made, count = self._pull_image(place, credentials), 1
        size = layout.bytes_in(made)
        facts = {
            "reference": self._reference.text,
            "digest": self._order.digest,
            "size": size,
            "files": count,
            "stagedAt": datetime.datetime.fromtimestamp(self._clock.now(), datetime.UTC).isoformat(
                timespec="seconds"
            ),
        }
        _flush(made)
        told = place.work / "facts.json"
        layout.write_json(told, facts)
        if self._held is None or not self._held.is_mine():
            raise Unavailable(f"{self._reference.text}: another process has taken over")
        told.rename(place.facts)
        try:
            made.rename(place.final)
        except OSError:
            if not place.final.exists():
                raise
        _sync(place.folder)
        shutil.rmtree(place.work, ignore_errors=True)

    def _fetch_model(self, place: layout.Place, credentials: dict[str, str]) -> tuple[Path, int]:
        source = self._hub(credentials)
        files = source.files(self._order.digest)
        total = sum(each.size for each in files)
        there = layout.bytes_in(place.work / "files")
        self._check_space(total - there, place.folder)
        self._is_at(staging.Step.DOWNLOADING, total, place.work / "files")
        verifying = lambda: self._is_at(staging.Step.VERIFYING)  # noqa: E731
        return source.fetch(self._order.digest, files, place.work, verifying), len(files)

    def _pull_image(self, place: layout.Place, credentials: dict[str, str]) -> Path:
        source = self._registry(credentials)
        image = source.image(self._order.digest)
        for left in place.work.glob("*.sif"):
            left.unlink()
        target = place.work / f"{self._me.token}.sif"
        blobs = place.work / "layout"
        if self._reference.scheme == "oras":
            if len(image.layers) != 1:
                raise NeedsUser(
                    "Unsupported", f"{self._reference.text} is not an image that was pushed as a .sif"
                )
            blobs.mkdir(mode=0o700, exist_ok=True)
            self._check_space(image.size - layout.bytes_in(blobs), place.folder)
            self._is_at(staging.Step.DOWNLOADING, image.size, blobs)
            source.fetch(image.layers[0], blobs / "image.sif")
            return blobs / "image.sif"
        tmp = Path(self._order.tmp_dir) if self._order.tmp_dir else place.work
        self._builder = container.Builder(self._reference, place.work, tmp / f"tmp-{self._me.token}")
        self._builder.check()
        self._check_space(image.size - layout.bytes_in(blobs), place.folder)
        self._is_at(staging.Step.DOWNLOADING, image.size, blobs)
        container.fetch(source, image, blobs)
        self._is_at(staging.Step.BUILDING)
        self._builder.build(blobs, target)
        return target

    def _check_space(self, needed: int, folder: Path) -> None:
        selection.check_space(self._reference.text, needed, layout.free_bytes(folder), str(folder))


def _with_space(error: NeedsUser, place: layout.Place) -> NeedsUser:
    """A full disk with its figures, also when somebody else's program found it full."""
    if error.reason != "NoSpace" or "free" in str(error):
        return error
    free, used = layout.free_bytes(place.folder), layout.bytes_in(place.work)
    return NeedsUser(
        "NoSpace",
        f"{error}: {staging.amount(used)} were fetched to {place.folder} and {staging.amount(free)} are free",
    )


def _of_disk(error: OSError, reference: artifact.Reference, place: layout.Place) -> LlmopError:
    if error.errno in hub.FULL:
        return _with_space(NeedsUser("NoSpace", f"{reference.text}: {error.strerror}"), place)
    return Unavailable(f"{error.filename or place.folder}: {error.strerror or error}")


def _flush(path: Path) -> None:
    """To the disk, before a name says that it is there."""
    folders = [path]
    for root, names, files in os.walk(path) if path.is_dir() else ():
        folders += [Path(root) / name for name in names]
        for name in files:
            _sync(Path(root) / name)
    for each in folders:
        _sync(each)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _until_alone(stager: Stager) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    stager.stop()


def main(arguments: list[str]) -> int:
    """[--job] ORDER. 0 with the digest as last line, 1 with an error as last line."""
    *flags, text = arguments
    is_job = flags == [IN_JOB]
    wanted = order.load(text)
    os.umask(0o077)
    stager = Stager(wanted, SystemClock())
    hub.prepare_environment(stager.home)

    def end(_number: int, _frame: FrameType | None) -> None:
        stager.stop()

    signal.signal(signal.SIGTERM, end)
    if not is_job:
        os.nice(NICENESS)
        threading.Thread(target=_until_alone, args=(stager,), daemon=True).start()
    try:
        _write(order.result_line(stager.run()))
    except LlmopError as error:
        _write(order.error_line(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
