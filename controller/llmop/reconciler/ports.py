"""Everything outside the reconciler: given by the composition root, or by a simulation."""

import dataclasses
import types
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol

from llmop.clock import Clock
from llmop.cluster import driver
from llmop.domain import replica, site
from llmop.planner import values
from llmop.reconciler import artifacts, render, shared
from llmop.store import interface


class Agents(Protocol):
    """What the reconciler needs of the agent channel (`channel.desk.Desk` is one)."""

    @property
    def heartbeats(self) -> Mapping[str, replica.Heartbeat]:
        """By replica uid."""
        ...

    @property
    def period_s(self) -> float:
        """Seconds between the heartbeats of one agent."""
        ...

    @property
    def writers(self) -> Collection[str]:
        """Uids of replicas whose agents write files."""
        ...

    @property
    def is_deaf(self) -> bool:
        """Agents that write files could not be heard for a while: their silence is ours."""
        ...

    def drain(self, uid: str, order_id: str, reason: str, deadline_at: float) -> None:
        """Gives the order to drain; the same order twice is one."""
        ...

    def ended(self, uid: str) -> None:
        """The end of the replica is recorded: that its agent is silent says nothing any more."""
        ...

    def forget(self, uid: str) -> None:
        """The replica is gone."""
        ...

    def clock_stepped(self, seconds: float) -> None:
        """Somebody has set the wall clock (forward, when positive): what was heard keeps its age."""
        ...


class NoAgents:
    """Before the channel is attached nobody was heard."""

    heartbeats: Mapping[str, replica.Heartbeat] = types.MappingProxyType({})
    period_s = 5.0
    is_deaf = False
    writers: Collection[str] = frozenset()

    def drain(self, uid: str, order_id: str, reason: str, deadline_at: float) -> None:
        raise AssertionError("orders need a channel")

    def ended(self, uid: str) -> None:
        """Nothing was heard."""

    def forget(self, uid: str) -> None:
        """Nothing was known."""

    def clock_stepped(self, seconds: float) -> None:
        """Nothing was heard."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Ports:
    store: interface.Store
    clock: Clock
    make_cluster: Callable[[site.Site], driver.Cluster]
    make_files: Callable[[site.Site], shared.SharedDirectory]
    install: Callable[
        [site.Site], Awaitable[render.Installation]
    ]  # makes the shared directory usable; raises OSError, in time also when it hangs
    jitter: Callable[[], float]  # 0..1
    stage: artifacts.Runner = dataclasses.field(default_factory=artifacts.NoRunner)
    url: str = ""  # what status.url shows: the gateway's address
    # Called with what every pass over a deployment saw and decided, before it is carried out.
    planned: Callable[[values.Desired, values.Observed, values.Plan], None] = lambda _desired, _seen, _plan: (
        None
    )
