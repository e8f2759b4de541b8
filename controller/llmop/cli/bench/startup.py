"""How long a replica takes from the apply to its first token, step by step."""

import dataclasses
from collections.abc import Mapping

# In order. What each means is in docs/howto/measure-models.md.
STEPS = ("replica", "submitted", "running", "started", "listening", "generated", "ready", "answered")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Startup:
    """One replica's. `steps` are seconds since the apply was sent, those of STEPS that are known; `image` is "" without a container."""

    deployment: str
    image: str
    steps: Mapping[str, float]
