"""A plan that is being made."""

import dataclasses

from llmop.domain import replica, resources
from llmop.planner import values


@dataclasses.dataclass(slots=True)
class Draft:
    """Collects the plan. Lives for one call."""

    actions: list[values.Action] = dataclasses.field(default_factory=list)
    rechecks: list[float] = dataclasses.field(default_factory=list)
    is_stalled_submission: bool = False

    def announce(self, each: replica.Replica, reason: str, message: str, *, warning: bool = False) -> None:
        owner = resources.Owner(kind=resources.REPLICA, name=each.name, uid=each.uid)
        self.actions.append(values.Announce(regarding=owner, warning=warning, reason=reason, message=message))

    def recheck(self, at: float | None) -> None:
        if at is not None:
            self.rechecks.append(at)
