"""What a replica needs to have on the cluster, what a revision remembers of it, and how far bringing it there is."""

import dataclasses
import enum
from collections.abc import Sequence

from llmop.domain import artifact
from llmop.domain.deployment import Template
from llmop.domain.runtime import Runtime


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """What the reference `reference` (its text) was when a revision first needed it.

    `digest` is `sha256:...` of an image's manifest, or the commit of a hub's repository.
    """

    reference: str
    digest: str


class Step(enum.StrEnum):
    """How far one artifact is. The order is the usual one."""

    RESOLVING = "Resolving"
    QUEUED = "Queued"  # others are staged first
    WAITING = "Waiting"  # another process stages it
    PENDING = "JobPending"  # the job that stages it does not run yet; the message says why
    DOWNLOADING = "Downloading"
    BUILDING = "Building"
    VERIFYING = "Verifying"
    READY = "Ready"
    FAILED = "Failed"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """One artifact as last seen. Bytes; 0 = not known. A failed one says why, and when it is tried again (epoch seconds).

    `message` is also what a pending one waits for.
    """

    step: Step
    done: int = 0
    total: int = 0
    reason: str = ""
    message: str = ""
    needs_user: bool = False
    retry_at: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What is known of one reference: what it was resolved to ("" = not yet), and how far it is (None = not looked yet)."""

    digest: str = ""
    progress: Progress | None = None


def image_of(runtime: Runtime, template: Template) -> str:
    """The image that a replica of `template` runs in, as it was written; "" without a container."""
    return "" if runtime.container == "none" else template.image or runtime.image


def wanted(runtime: Runtime, template: Template) -> tuple[artifact.Reference, ...]:
    """What has to be staged before a replica of `template` can start; () when all that it names are paths.

    Both were checked when they were applied.
    """
    found = []
    image = image_of(runtime, template)
    if artifact.is_image_reference(image):
        found.append(artifact.parse_image(image))
    if artifact.is_model_reference(template.model_uri):
        found.append(artifact.parse_model(template.model_uri, template.model_revision))
    return tuple(found)


def located(runtime: Runtime, template: Template, pins: Sequence[Pin], shared_dir: str) -> Template:
    """`template` with the paths of what its references are pinned to. Raises ValueError for one that has no pin."""
    digests = {pin.reference: pin.digest for pin in pins}
    for reference in wanted(runtime, template):
        if reference.text not in digests:
            raise ValueError(f"{reference.text} was not resolved yet")
        path = artifact.location(shared_dir, reference, digests[reference.text])
        if reference.kind is artifact.Kind.IMAGE:
            template = dataclasses.replace(template, image=path)
        else:
            template = dataclasses.replace(template, model_uri=f"file://{path}", model_revision="")
    return template


def amount(size: int) -> str:
    """As people write it: 1.5 GB. Decimal units, as hubs and disks use them."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
