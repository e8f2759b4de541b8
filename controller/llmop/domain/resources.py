"""The envelope that every stored thing has, whatever its kind."""

import dataclasses
from collections.abc import Mapping
from typing import Any

API_VERSION = "llmop/v1alpha1"
STORED_TEXT = "storedText"  # the only field of a spec that is stored as something else than a JSON mapping

JOBS_FINALIZER = "llmop/jobs"  # on deployments, until the controller sees that none of their jobs is left

MODEL_DEPLOYMENT = "ModelDeployment"
REPLICA = "Replica"
REVISION = "Revision"
SERVING_RUNTIME = "ServingRuntime"
RESOURCE_PROFILE = "ResourceProfile"
CLUSTER = "Cluster"
API_KEY = "APIKey"
TRIBUNAL = "Tribunal"
ASSISTANT = "Assistant"
EVENT = "Event"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class KindInfo:
    """How a kind is called and who may write it."""

    name: str
    singular: str
    plural: str
    short_names: tuple[str, ...]
    namespaced: bool
    read_only: bool
    description: str


KINDS: Mapping[str, KindInfo] = {
    info.name: info
    for info in (
        KindInfo(
            name=MODEL_DEPLOYMENT,
            singular="modeldeployment",
            plural="modeldeployments",
            short_names=("md",),
            namespaced=True,
            read_only=False,
            description="this model, this engine, this many replicas",
        ),
        KindInfo(
            name=REPLICA,
            singular="replica",
            plural="replicas",
            short_names=("rep",),
            namespaced=True,
            read_only=True,
            description="one Slurm job that serves a deployment's model",
        ),
        KindInfo(
            name=REVISION,
            singular="revision",
            plural="revisions",
            short_names=("rev",),
            namespaced=True,
            read_only=True,
            description="an immutable template of a deployment",
        ),
        KindInfo(
            name=SERVING_RUNTIME,
            singular="servingruntime",
            plural="servingruntimes",
            short_names=("sr",),
            namespaced=False,
            read_only=False,
            description="how an engine is started, probed and measured",
        ),
        KindInfo(
            name=RESOURCE_PROFILE,
            singular="resourceprofile",
            plural="resourceprofiles",
            short_names=("rp",),
            namespaced=False,
            read_only=False,
            description="what a short name such as a100 means on a cluster",
        ),
        KindInfo(
            name=CLUSTER,
            singular="cluster",
            plural="clusters",
            short_names=("cl",),
            namespaced=False,
            read_only=False,
            description="a Slurm cluster, or this machine",
        ),
        KindInfo(
            name=API_KEY,
            singular="apikey",
            plural="apikeys",
            short_names=("key",),
            namespaced=True,
            read_only=False,
            description="who may call the gateway: models, priority, limits",
        ),
        KindInfo(
            name=TRIBUNAL,
            singular="tribunal",
            plural="tribunals",
            short_names=("tb",),
            namespaced=True,
            read_only=False,
            description="a virtual model: several drafts, critics, a judge",
        ),
        KindInfo(
            name=ASSISTANT,
            singular="assistant",
            plural="assistants",
            short_names=("as",),
            namespaced=True,
            read_only=False,
            description="a virtual model: answers from documents, with citations",
        ),
        KindInfo(
            name=EVENT,
            singular="event",
            plural="events",
            short_names=("ev",),
            namespaced=True,
            read_only=True,
            description="what happened, aggregated, kept for seven days",
        ),
    )
}

# Kinds whose objects are models without replicas: `llmop workloads` answers for them.
VIRTUAL = (TRIBUNAL, ASSISTANT)

# Kinds that a later version will have, and how people write them: refused by name until then.
LATER_KINDS: Mapping[str, tuple[str, ...]] = {
    "Route": ("route", "routes", "rt"),
    "GitSource": ("gitsource", "gitsources", "gs"),
}


def is_later_kind(word: str) -> bool:
    """Whether `word` names a kind of a later version, in any of the forms that `find_kind` takes."""
    wanted = word.lower().removesuffix(".llmop")
    return any(wanted in words for words in LATER_KINDS.values())


def find_kind(word: str) -> KindInfo | None:
    """The kind that `word` names: kind, singular, plural or short name, in any case, with or without the group."""
    wanted = word.lower().removesuffix(".llmop")
    for info in KINDS.values():
        if wanted in (info.name.lower(), info.singular, info.plural, *info.short_names):
            return info
    return None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    kind: str
    name: str
    uid: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Resource:
    """One object as it is stored.

    `spec` and `status` are JSON objects in the words of the manifests (camelCase, defaults filled in). `generation` rises
    with the spec only, `resource_version` with every write. `owned_fields` maps a field manager to the paths it set.
    """

    kind: str
    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: int = 0
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    annotations: Mapping[str, str] = dataclasses.field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    owner: Owner | None = None
    created_at: float = 0.0
    deleted_at: float | None = None
    owned_fields: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    spec: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    status: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        """(kind, namespace, name)."""
        return (self.kind, self.namespace, self.name)
