"""Faults on demand: the words for them and the memory of which are due.

| spec | what happens |
|---|---|
| `crash@load` | the process ends instead of becoming ready |
| `crash@ready` | the process ends as soon as the port is open |
| `crash@request:N` | the process ends when the Nth generation request arrives |
| `hang@load` | the port never opens |
| `hang@request:N` | generation stands still from the Nth request on; health still answers, as TGI's does |
| `fail@request:N` | the Nth request is answered with a generation error (424, or an event in a stream) |
| `fail@token:N` | every answer fails after N tokens (424, or an event in the middle of a stream) |
| `incomplete@request:N` | the Nth request is answered as if its end had been lost (500, or an event in a stream) |
| `unhealthy@ready`, `unhealthy@request:N` | health answers 503, at once or from the Nth request on |
| `cut-stream@token:N` | every stream loses its connection after N tokens |
| `slow-load:SECONDS` | loading takes so much longer |
| `exit-code:N` | the exit status of a crash (1 without it) |

Requests are counted from the moment the fault is set, beginning with 1.
"""

from __future__ import annotations

from dataclasses import dataclass

_PLACES: dict[str, tuple[str, ...]] = {
    "crash": ("load", "ready", "request"),
    "hang": ("load", "request"),
    "fail": ("request", "token"),
    "incomplete": ("request",),
    "unhealthy": ("ready", "request"),
    "cut-stream": ("token",),
}
_COUNTED = ("request", "token")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One fault. `place` is empty for `slow-load` and `exit-code`; `number` is N or SECONDS, 0 where unused."""

    action: str
    place: str = ""
    number: float = 0

    def __str__(self) -> str:
        place = f"@{self.place}" if self.place else ""
        return f"{self.action}{place}:{self.number:g}" if self.number else f"{self.action}{place}"


def parse_fault(spec: str) -> Fault:
    """Read one spec of the table above; ValueError says what is wrong with it and what is possible."""
    action, at, rest = spec.strip().partition("@")
    if not at:
        action, _, number = action.partition(":")
        if action == "slow-load":
            return Fault(action=action, number=_number(spec, number, least=0))
        if action == "exit-code":
            return Fault(action=action, number=_whole(spec, number, least=1, most=255))
        raise ValueError(f"fault {spec!r}: want one of {_known()}")
    place, _, number = rest.partition(":")
    if place not in _PLACES.get(action, ()):
        raise ValueError(f"fault {spec!r}: want one of {_known()}")
    if place in _COUNTED:
        return Fault(action=action, place=place, number=_whole(spec, number, least=1, most=10**9))
    if number:
        raise ValueError(f"fault {spec!r}: {action}@{place} takes no number")
    return Fault(action=action, place=place)


class Faults:
    """The faults that are set, and how far each has come."""

    def __init__(self, faults: tuple[Fault, ...] = ()) -> None:
        self._faults: list[Fault] = list(faults)
        self._requests: list[int] = [0] * len(faults)

    def add(self, fault: Fault) -> None:
        """Set one more; its count of requests starts now."""
        self._faults.append(fault)
        self._requests.append(0)

    def clear(self) -> None:
        """Remove all."""
        self._faults.clear()
        self._requests.clear()

    def active(self) -> list[str]:
        """The specs of all faults that are set."""
        return [str(fault) for fault in self._faults]

    def at(self, action: str, place: str) -> bool:
        """Whether `action@place` is set (places without a number)."""
        return any(fault.action == action and fault.place == place for fault in self._faults)

    def number(self, action: str, default: float) -> float:
        """The number of `slow-load`, `exit-code` or `cut-stream` (the last one set), or `default`."""
        return next((fault.number for fault in reversed(self._faults) if fault.action == action), default)

    def number_at(self, action: str, place: str) -> float:
        """The number of `action@place` (the last one set), 0 where it is not set."""
        return next(
            (
                fault.number
                for fault in reversed(self._faults)
                if fault.action == action and fault.place == place
            ),
            0,
        )

    def count_request(self) -> frozenset[str]:
        """A generation request has arrived: the actions that are due with it.

        `hang` and `unhealthy` stay due for every later request, all others are due once.
        """
        due = set()
        for index, fault in enumerate(self._faults):
            if fault.place != "request":
                continue
            self._requests[index] += 1
            count = self._requests[index]
            lasting = fault.action in ("hang", "unhealthy")
            if count == fault.number or (lasting and count > fault.number):
                due.add(fault.action)
        return frozenset(due)


def _number(spec: str, text: str, *, least: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not least <= value < 1e9:
        raise ValueError(f"fault {spec!r}: {text!r} is not a number of seconds")
    return value


def _whole(spec: str, text: str, *, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise ValueError(
            f"fault {spec!r}: want a whole number from {least} to {most} after the colon, not {text!r}"
        )
    return int(text)


def _known() -> str:
    placed = [
        f"{action}@{place}" + (":N" if place in _COUNTED else "")
        for action, places in _PLACES.items()
        for place in places
    ]
    return ", ".join([*placed, "slow-load:SECONDS", "exit-code:N"])
