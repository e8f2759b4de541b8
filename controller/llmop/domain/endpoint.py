"""What gateways route to: a versioned table of endpoints and models."""

import dataclasses
import enum


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
class RoutedModel:
    """A public model name. Listed even when nobody serves it, so that clients hear "no endpoint", not "no such model"."""

    name: str
    deployment: str
    protocols: tuple[str, ...]
    created_at: float
    upstream_model: str = ""  # what the engine wants to read as "model"; "" = what the client sent
    retry_attempts: int = 2
    usage_in_stream: bool = False  # its streams say what they used when asked
    virtual: bool = False  # no engine but `llmop workloads` answers for it


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EndpointTable:
    """`version` rises within an installation, over restarts of the controller too."""

    version: int
    endpoints: tuple[Endpoint, ...] = ()
    models: tuple[RoutedModel, ...] = ()
