"""Where the loads that gateways report go, and what follows from them. The reconciler implements it."""

from collections.abc import Mapping
from typing import Protocol

from llmop.domain.replica import EngineLoad
from llmop.domain.resources import Resource
from llmop.domain.scaling import Reported
from llmop.planner.autoscale import Decision, Load


class LoadSink(Protocol):
    def report(self, gateway: str, loads: Mapping[str, Reported]) -> None:
        """`gateway` has this much of each deployment (`namespace/name`) that it knows."""
        ...

    def load(self, deployment: str) -> Load | None:
        """What all gateways together have of this deployment (`namespace/name`) now; None while none was heard."""
        ...

    def decision(self, uid: str) -> Decision | None:
        """How many replicas the load asks for: the last decision about the deployment with this uid; None where there is none."""
        ...

    def engines(self, owner: Resource) -> Mapping[str, EngineLoad | None]:
        """What the engines of the deployment's replicas that serve say of themselves, by replica; None where nothing is known."""
        ...
