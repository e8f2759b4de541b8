"""What gateways route to: a versioned table of endpoints and models."""

import dataclasses
import enum


class EndpointState(enum.StrEnum):
    READY = "Ready"
    SUSPECT = "Suspect"
    DRAINING = "Draining"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """A proven engine. `deployment` is namespace/name; `ends_at` is the walltime end, None = unlimited or unknown."""

    replica: str
    uid: str
    host: str
    port: int
    api_key: str
    state: EndpointState
    deployment: str
    ends_at: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RoutedModel:
    """A public model name. Listed even when nobody serves it, so that clients hear "no endpoint", not "no such model"."""

    name: str
    deployment: str
    protocols: tuple[str, ...]
    created_at: float
    upstream_model: str = ""  # what the engine wants to read as "model"; "" = what the client sent
    usage_in_stream: bool = False
    strategy: str = "LeastOutstanding"
    retry_attempts: int = 2


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EndpointTable:
    """`version` rises within an installation, over restarts of the controller too."""

    version: int
    endpoints: tuple[Endpoint, ...] = ()
    models: tuple[RoutedModel, ...] = ()
