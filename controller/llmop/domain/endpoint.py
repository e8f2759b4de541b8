"""What gateways route to: a versioned table of endpoints and models."""

import dataclasses
import enum

from llmop.domain.client import ClientKey


class EndpointState(enum.StrEnum):
    READY = "Ready"
    SUSPECT = "Suspect"
    DRAINING = "Draining"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """A proven engine. `deployment` is namespace/name."""

    replica: str
    uid: str
    host: str
    port: int
    api_key: str
    state: EndpointState
    deployment: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class QueueBounds:
    """How requests wait that no endpoint can take, per gateway and priority; all zero = they do not wait.

    `max_bytes` counts their bodies and heads. A time to live is in seconds from a request's arrival: `request_ttl_s` while there are
    endpoints, all of them full, `no_endpoint_request_ttl_s` while there is none.
    """

    max_requests: int = 0
    max_bytes: int = 0
    request_ttl_s: int = 0
    no_endpoint_request_ttl_s: int = 0


NO_QUEUE = QueueBounds()


class Stage(enum.StrEnum):
    """How far the next replica is."""

    NONE = ""  # none is on its way
    PENDING = "Pending"  # its job waits
    LOADING = "Loading"  # its job runs


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class NextReplica:
    """The replica that will be ready next. Times are epoch seconds, rounded so that they rarely change; None = not known."""

    stage: Stage = Stage.NONE
    starts_at: float | None = None
    ready_at: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RoutedModel:
    """A public model name. Listed even when nobody serves it, so that clients hear "no endpoint", not "no such model"."""

    name: str
    deployment: str
    protocols: tuple[str, ...]
    created_at: float
    upstream_model: str = ""  # what the engine wants to read as "model"; "" = what the client sent
    retry_attempts: int = 2
    usage_in_stream: bool = False  # its streams say what they used when asked
    max_in_flight: int = 0  # requests that an endpoint takes at a time; 0 = as many as come
    queue: QueueBounds = QueueBounds()
    next_replica: NextReplica = NextReplica()
    virtual: bool = False  # no engine but `llmop workloads` answers for it
    wakes: bool = False  # a request that finds no endpoint starts a replica


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EndpointTable:
    """`version` rises within an installation, over restarts of the controller too."""

    version: int
    endpoints: tuple[Endpoint, ...] = ()
    models: tuple[RoutedModel, ...] = ()
    keys: tuple[ClientKey, ...] = ()
