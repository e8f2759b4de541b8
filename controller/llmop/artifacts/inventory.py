"""What lies in a cluster's shared directory, who uses it, and how what nobody uses goes away.

Nothing is removed under the hands of a deployment that needs it: an artifact is first set aside by a rename, under its lock; then it is
looked once more whether a revision names it, and only then is it deleted, or put back.
"""

import contextlib
import dataclasses
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from llmop.artifacts import layout
from llmop.domain import artifact, staging
from llmop.files import lock

_ASIDE = ".aside."


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One artifact on a disk. `entry` is its path below the shared directory. What is unfinished has no facts, only a size."""

    entry: str
    size: int
    reference: str = ""
    digest: str = ""
    staged_at: str = ""  # RFC 3339
    is_finished: bool = True

    @property
    def kind(self) -> artifact.Kind:
        return artifact.Kind.IMAGE if self.entry.startswith(layout.IMAGES) else artifact.Kind.MODEL


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One artifact and the revisions that name it, as `namespace/deployment:revision`."""

    found: Found
    used_by: tuple[str, ...]


def uses(revisions: Iterable[tuple[str, Sequence[staging.Pin]]]) -> Mapping[str, tuple[str, ...]]:
    """Entry -> names of the revisions that pin it. `revisions` are (name, pins). Pins that nobody can read name nothing."""
    found: dict[str, set[str]] = {}
    for name, pins in revisions:
        for pin in pins:
            with contextlib.suppress(ValueError):
                found.setdefault(artifact.entry(artifact.parse(pin.reference), pin.digest), set()).add(name)
    return {entry: tuple(sorted(names)) for entry, names in found.items()}


def items(found: Sequence[Found], used: Mapping[str, tuple[str, ...]]) -> tuple[Item, ...]:
    """Everything with its users, images first, the largest first."""
    listed = [Item(found=each, used_by=used.get(each.entry, ())) for each in found]
    return tuple(sorted(listed, key=lambda each: (each.found.kind, -each.found.size, each.found.entry)))


def spare(listed: Sequence[Item]) -> tuple[Item, ...]:
    """What no revision uses."""
    return tuple(each for each in listed if not each.used_by)


# On the disk


def look(shared_dir: Path) -> tuple[Found, ...]:
    """Everything there is. Raises OSError when the directory cannot be read; what vanishes meanwhile is left out."""
    found: list[Found] = []
    for folder, suffix in ((layout.IMAGES, ".sif"), (layout.MODELS, "")):
        root = shared_dir / folder
        found += [
            _finished(f"{folder}/{path.name}", path, root / f"{path.name.removesuffix(suffix)}.json")
            for path in _entries(root)
            if path.name.endswith(suffix) and _is_name(path.name.removesuffix(suffix))
        ]
        found += [
            Found(entry=f"{folder}/{path.name[:64]}{suffix}", size=layout.bytes_in(path), is_finished=False)
            for path in _entries(root / layout.STAGING)
            if _is_name(path.name[:64]) and (len(path.name) == 64 or _ASIDE in path.name)
        ]
    return tuple(found)


def set_aside(shared_dir: Path, entry: str) -> str:
    """Takes the artifact out of its place. "" or why not: somebody stages it. Raises OSError."""
    place = layout.place(shared_dir, entry)
    held = lock.Lock(place.lock, lock.myself())
    seen = held.look()
    if seen is not None and held.is_gone(seen, 0.0):
        held.bury(seen)
    if not held.take():
        return "it is being staged"
    try:
        if place.final.exists():
            place.final.rename(place.work.with_name(f"{place.work.name}{_ASIDE}{secrets.token_hex(4)}"))
    finally:
        held.release()
    return ""


def put_back(shared_dir: Path, entry: str) -> None:
    """A revision has named it meanwhile. Raises OSError."""
    place = layout.place(shared_dir, entry)
    for aside in _asides(place):
        if not place.final.exists():
            aside.rename(place.final)


def delete(shared_dir: Path, entry: str) -> None:
    """What was set aside, what is unfinished, and what is told of it. Raises OSError."""
    place = layout.place(shared_dir, entry)
    for each in (*_asides(place), place.work, place.job):
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink(missing_ok=True)  # an image that was set aside
    if not place.final.exists():
        place.facts.unlink(missing_ok=True)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _asides(place: layout.Place) -> list[Path]:
    return sorted(place.work.parent.glob(f"{place.work.name}{_ASIDE}*"))


def _finished(entry: str, path: Path, facts: Path) -> Found:
    told = layout.read_json(facts)
    return Found(
        entry=entry,
        size=layout.bytes_in(path),
        reference=str(told.get("reference", "")),
        digest=str(told.get("digest", "")),
        staged_at=str(told.get("stagedAt", "")),
    )


def _is_name(text: str) -> bool:
    return len(text) == 64 and all(character in "0123456789abcdef" for character in text)
