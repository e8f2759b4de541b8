"""Usage on its way from the workers' tallies to the controller: nothing is lost and nothing counted twice, whoever ends in between.

What is taken from the tallies becomes a row of a batch in the same write that remembers that it was taken. Batches have numbers; the controller
counts each one once, however often it is sent. A gateway that was told that a batch has arrived forgets it.
"""

import dataclasses
import fcntl
import logging
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from llmop.clock import Clock
from llmop.domain.usage import HOUR, Amount, UsageRow
from llmop.files import whole
from llmop.gateway import tally
from llmop.gateway.tally import Names

LOG = logging.getLogger(__name__)

BATCH = 5000  # rows at most: some two megabytes, what the control API takes at a time is four
MOST_ROWS = 100_000  # that wait for the controller; beyond them hours are not told apart any more
_MOST_SPOOLS = 64
_DAMAGED = ".damaged"
_NOTHING = Amount()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    number: int
    rows: tuple[UsageRow, ...]


Amounts = Mapping[Names, Amount]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What stands on disk. `taken` is what was taken from each tally; from those in `finished` nothing is taken any more."""

    spool: str
    last_number: int = 0
    taken: Mapping[str, Amounts] = dataclasses.field(default_factory=dict)
    finished: frozenset[str] = frozenset()
    batches: tuple[Batch, ...] = ()


def take(state: State, tallies: Mapping[str, Amounts], complete: frozenset[str], now: float) -> State:
    """What the tallies have more than was taken goes into the last batches, or new ones. The first may be on its way, and stays as it is.

    `complete` are those of whose workers nothing comes any more, by name.
    """
    news: dict[Names, Amount] = {}
    for tally_name, amounts in tallies.items():
        before = state.taken.get(tally_name, {})
        for names, amount in amounts.items():
            new = amount.beyond(before.get(names, _NOTHING))
            if new != _NOTHING:
                news[names] = news.get(names, _NOTHING) + new
    state = dataclasses.replace(
        state,
        taken={name: amounts for name, amounts in tallies.items() if name not in complete},
        finished=state.finished | complete,
    )
    return _add(state, news, int(now) // HOUR * HOUR) if news else state


def _add(state: State, news: Amounts, hour: int) -> State:
    if sum(len(batch.rows) for batch in state.batches) >= MOST_ROWS:
        hour = state.batches[-1].rows[-1].hour
    first, waiting = state.batches[:1], state.batches[1:]
    rows = {(row.hour, row.key, row.model): row.amount for batch in waiting for row in batch.rows}
    for (key, model), amount in news.items():
        place = (hour, key, model)
        rows[place] = rows.get(place, _NOTHING) + amount
    places = list(rows)
    number = waiting[0].number if waiting else state.last_number + 1
    parts = [places[start : start + BATCH] for start in range(0, len(places), BATCH)]
    batches = tuple(
        _batch(number + index, {place: rows[place] for place in part}) for index, part in enumerate(parts)
    )
    return dataclasses.replace(state, last_number=batches[-1].number, batches=(*first, *batches))


def _batch(number: int, rows: Mapping[tuple[int, str, str], Amount]) -> Batch:
    return Batch(
        number=number,
        rows=tuple(
            UsageRow(hour=hour, key=key, model=model, amount=amount)
            for (hour, key, model), amount in rows.items()
        ),
    )


def to_json(state: State) -> bytes:
    return orjson.dumps(
        {
            "spool": state.spool,
            "last_number": state.last_number,
            "taken": {
                name: [[*names, *_numbers(amount)] for names, amount in amounts.items()]
                for name, amounts in state.taken.items()
            },
            "finished": sorted(state.finished),
            "batches": [
                {
                    "number": batch.number,
                    "rows": [[row.hour, row.key, row.model, *_numbers(row.amount)] for row in batch.rows],
                }
                for batch in state.batches
            ],
        }
    )


def from_json(text: bytes) -> State:
    """Raises ValueError for anything that `to_json` did not write."""
    try:
        value: dict[str, Any] = orjson.loads(text)
        return State(
            spool=value["spool"],
            last_number=value["last_number"],
            taken={
                name: {(key, model): _amount(numbers) for key, model, *numbers in amounts}
                for name, amounts in value["taken"].items()
            },
            finished=frozenset(value["finished"]),
            batches=tuple(
                Batch(
                    number=batch["number"],
                    rows=tuple(
                        UsageRow(hour=hour, key=key, model=model, amount=_amount(numbers))
                        for hour, key, model, *numbers in batch["rows"]
                    ),
                )
                for batch in value["batches"]
            ),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a spool: {error!r}") from error


def _numbers(amount: Amount) -> tuple[int, ...]:
    return dataclasses.astuple(amount)


def _amount(numbers: list[int]) -> Amount:
    requests, prompt, completion, estimated, limited = numbers
    return Amount(
        requests=requests,
        prompt_tokens=prompt,
        completion_tokens=completion,
        estimated=estimated,
        limited=limited,
    )


class Spool:
    """On disk, of one gateway at a time. All but `folder` waits for the disk: to be called in a thread, one after the other."""

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        """Takes over what an earlier gateway left. Raises OSError, and ValueError for a damaged file."""
        self._clock = clock
        self.folder, self._lock = _claim(state_dir)
        self._file = self.folder / "spool.json"
        try:
            self._state = self._stored = from_json(self._file.read_bytes())
        except FileNotFoundError:
            self._state = State(spool=clock.uid())
            self._write()

    @property
    def name(self) -> str:
        """Unique among all spools that there ever are."""
        return self._state.spool

    def collect(self, own: str = "") -> Batch | None:
        """Takes what is new, and gives the batch that is to be sent next. `own` is the tally of this process, if it has one: it is not over,
        whatever its lock says. Raises OSError.
        """
        tallies: dict[str, Amounts] = {}
        complete = set()
        for file in sorted(self.folder.glob(f"*{tally.SUFFIX}")):
            if file.name in self._state.finished:
                file.unlink()
                continue
            try:
                tallies[file.name], over = tally.read(file)
            except (ValueError, struct.error) as error:  # a disk that lost a part of it
                file.rename(file.with_suffix(_DAMAGED))
                LOG.error("%s cannot be read, and lies there as *%s now: %s", file, _DAMAGED, error)
                continue
            if over and file.name != own:
                complete.add(file.name)
        gone = frozenset(name for name in self._state.finished if not (self.folder / name).exists())
        state = take(self._state, tallies, frozenset(complete), self._clock.now())
        self._state = dataclasses.replace(state, finished=state.finished - gone)
        if self._state != self._stored:
            self._write()
        return self._state.batches[0] if self._state.batches else None

    def _write(self) -> None:
        whole.write(self._file, to_json(self._state), 0o600)
        self._stored = self._state

    def arrived(self, number: int) -> None:
        """The controller has this batch. `collect` writes that down before it gives the next one: what follows must not be changed any more
        once it is sent, also by a gateway that starts again.
        """
        batches = tuple(batch for batch in self._state.batches if batch.number > number)
        self._state = dataclasses.replace(self._state, batches=batches)

    def close(self) -> None:
        os.close(self._lock)


def _claim(state_dir: Path) -> tuple[Path, int]:
    """The first folder that no running gateway has, and the lock that holds it."""
    for number in range(_MOST_SPOOLS):
        folder = state_dir / f"usage-{number}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        return folder, descriptor
    raise OSError(f"{state_dir}: {_MOST_SPOOLS} gateways use this directory already")
