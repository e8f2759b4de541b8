"""Waiting for objects: with a deadline, with progress for people, and not a moment longer than there is hope."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from llmop.cli import conditions, progress, targets
from llmop.cli.client import Change
from llmop.cli.errors import CliError, ExitCode
from llmop.cli.session import Session, out
from llmop.cli.watching import Feed, Interest
from llmop.domain import resources
from llmop.manifest import suggest

WEEK_S = 7 * 86_400.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """What is waited for. `met` gets the object, or None while there is none; `done` is the text when it is met.

    `hopeless` says why it can never come, "" while it may. `progress` is one line for people, and also gets the objects of
    the extra interests; `details` are lines that explain a timeout.
    """

    kind: str
    namespace: str
    name: str
    met: Callable[[Any | None], bool]
    done: str
    text: str  # what is waited for, in the sentence of a timeout, before the object's name
    hopeless: Callable[[Any | None], str] = lambda item: ""
    progress: Callable[[Any | None, Sequence[Any]], str] = lambda item, extra: ""
    details: Callable[[Any | None], list[str]] = lambda item: []

    @property
    def label(self) -> str:
        return targets.label(self.kind, self.name)


def wait(
    session: Session, goals: Sequence[Goal], timeout_s: float, *, extra: Sequence[Interest] = ()
) -> None:
    """Returns when every goal is met. Raises CliError with TIMEOUT, or UNEXPECTED for what cannot come any more.

    0 looks once; a negative timeout is a week. `extra` are watched too, for the progress lines of goals that look at them.
    """
    if not goals:
        return
    round_ = _Round(goals, extra)
    feed = Feed(session.client, [*round_.open, *extra])
    deadline = time.monotonic() + (WEEK_S if timeout_s < 0 else timeout_s)
    with progress.shown() as shown:
        while round_.open:
            left = deadline - time.monotonic()
            if left <= 0 and (timeout_s != 0 or round_.all_seen):
                raise round_.timeout()
            found = feed.next(left if left > 0 else session.request_timeout)
            if found is None and left <= 0:
                raise CliError("error: the controller does not answer", ExitCode.TIMEOUT)
            if found is None:
                continue
            round_.take(*found)
            for goal, item in round_.due(found[0]):
                if goal.met(item):
                    round_.close(goal)
                    shown.clear()
                    out(goal.done)
                elif why := goal.hopeless(item):
                    shown.clear()
                    raise CliError(f"error: {goal.label}: {why}", ExitCode.UNEXPECTED)
            shown.show(round_.lines())


class _Round:
    """What is known while waiting."""

    def __init__(self, goals: Sequence[Goal], extra: Sequence[Interest]) -> None:
        self.open = {
            Interest(kind=goal.kind, namespace=goal.namespace, name=goal.name): goal for goal in goals
        }
        self._extra = frozenset(extra)
        self._seen: set[Interest] = set()
        self._items: dict[Interest, dict[tuple[str, str], Any]] = {}

    @property
    def all_seen(self) -> bool:
        """Whether the first state of everything that is watched is known."""
        return not (self.open.keys() | self._extra) - self._seen

    def take(self, interest: Interest, change: Change) -> None:
        items = self._items.setdefault(interest, {})
        if change.type == "SYNCED":
            self._seen.add(interest)
            return
        metadata = change.row.object.metadata
        if change.type == "DELETED":
            items.pop((metadata.namespace, metadata.name), None)
        else:
            items[(metadata.namespace, metadata.name)] = change.row.object

    def due(self, interest: Interest) -> list[tuple[Goal, Any | None]]:
        """The goal that a change of `interest` may have met, with its object."""
        if interest not in self.open or interest not in self._seen:
            return []
        return [(self.open[interest], self._item(interest))]

    def close(self, goal: Goal) -> None:
        self.open = {interest: each for interest, each in self.open.items() if each is not goal}

    def lines(self) -> dict[str, str]:
        """Label to progress of every open goal; nothing before the extra interests are known."""
        if self._extra - self._seen:
            return {}
        extra = [item for key in self._extra for item in self._items.get(key, {}).values()]
        shown = {}
        for interest, goal in self.open.items():
            if interest in self._seen and (text := goal.progress(self._item(interest), extra)):
                shown[goal.label] = text
        return shown

    def timeout(self) -> CliError:
        known = self.lines()
        lines = []
        for interest, goal in self.open.items():
            now = f"; {known[goal.label]}" if goal.label in known else ""
            lines.append(f"error: timed out waiting for {goal.text} {goal.label}{now}")
            lines += goal.details(self._item(interest))
        return CliError("\n".join(lines), ExitCode.TIMEOUT)

    def _item(self, interest: Interest) -> Any | None:
        return next(iter(self._items.get(interest, {}).values()), None)


def failure(item: Any | None) -> list[str]:
    """The last failure of an object with the end of its log, as lines."""
    return conditions.state(item).failure() if item is not None else []


def unknown_condition(item: Any | None, condition_type: str) -> list[str]:
    """A line about a condition that the object has not, perhaps because it is misspelt; none where it has it."""
    state = conditions.state(item) if item is not None else None
    has = [str(each["type"]) for each in state.status.get("conditions") or ()] if state is not None else []
    if not has or condition_type.lower() in (each.lower() for each in has):
        return []
    return [f"it has no such condition{suggest.hint(condition_type, has)}"]


def stalled(item: Any) -> str:
    """Why an object will not get on by itself, with its last failure; "" when it may."""
    why = conditions.state(item).stalled
    return "\n".join([f"stalled: {why}", *failure(item)]) if why else ""


def ready(item: Any) -> Goal:
    """The goal that an applied object works as it was asked for."""
    applied = conditions.state(item)

    def met(now: Any | None) -> bool:
        return now is not None and _is_applied(now) and conditions.state(now).is_ready

    def hopeless(now: Any | None) -> str:
        if now is None:
            return "it was deleted"
        return "it is being deleted" if conditions.state(now).deleting else stalled(now)

    def progress(now: Any | None, extra: Sequence[Any]) -> str:
        return conditions.state(now).progress() if now is not None else ""

    def _is_applied(now: Any) -> bool:
        return bool(now.metadata.generation >= applied.generation)

    return Goal(
        kind=item.kind,
        namespace=item.metadata.namespace,
        name=item.metadata.name,
        met=met,
        hopeless=hopeless,
        progress=progress,
        details=failure,
        done=f"{targets.label_of(item)} ready",
        text="the condition Ready on",
    )


def gone(item: Any, *, done: str) -> Goal:
    """The goal that this very object does not exist any more."""

    def met(now: Any | None) -> bool:
        return now is None or bool(now.metadata.uid != item.metadata.uid)

    def progress(now: Any | None, extra: Sequence[Any]) -> str:
        return blocking(now, extra) if now is not None else ""

    return Goal(
        kind=item.kind,
        namespace=item.metadata.namespace,
        name=item.metadata.name,
        met=met,
        progress=progress,
        done=done,
        text="the deletion of",
    )


def blocking(item: Any, replicas: Sequence[Any]) -> str:
    """What a deletion still waits for."""
    if item.kind == resources.REPLICA:
        status = conditions.state(item).status
        job = f" (job {status['jobId']})" if status.get("jobId") else ""
        return f"{status.get('phase') or 'Unknown'}{job}"
    held = []
    for each in replicas:
        state = conditions.state(each)
        if state.spec.get("deployment") == item.metadata.name:
            job = f", job {state.status['jobId']}" if state.status.get("jobId") else ""
            held.append(f"{state.name} ({state.status.get('phase') or 'Unknown'}{job})")
    if held:
        return (
            f"waiting for {len(held)} replica{'s' if len(held) > 1 else ''} to end: {', '.join(sorted(held))}"
        )
    return f"waiting for {waits_for(item.metadata)}"


def waits_for(metadata: Any) -> str:
    """Who has yet to let go of an object that is being deleted. The mark of llmop itself stands for the controller."""
    others = [each for each in metadata.finalizers if each != resources.JOBS_FINALIZER]
    return ", ".join(others) or "the controller"
