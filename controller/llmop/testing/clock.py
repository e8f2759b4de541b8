"""A clock that moves only when told, and names that follow from a seed."""

import math
import random
import uuid

_ALPHABET = "bcdfghjkmnpqrstvwxz2456789"
_MICROSECOND = 1e-6


class FakeClock:
    """Implements `llmop.clock.Clock`: two clocks of one seed that are moved alike give the same times and names."""

    def __init__(self, seed: int = 0, start: float = 1_760_000_000.0) -> None:
        self._random = random.Random(seed)
        self._now = start
        self._monotonic = 0.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def wall(self, monotonic: float) -> float:
        """The earliest wall time at which the monotonic clock will have got there, if nobody sets it."""
        when = self._now + (monotonic - self._monotonic)
        while self._monotonic + (when - self._now) < monotonic:
            when = math.nextafter(when, math.inf)
        return when

    def uid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def suffix(self, length: int) -> str:
        return "".join(self._random.choices(_ALPHABET, k=length))

    def secret(self) -> str:
        return f"{self._random.getrandbits(256):064x}"

    def advance(self, seconds: float) -> None:
        """Moves on by so many seconds."""
        self.move_to(self._now + seconds)

    def move_to(self, when: float) -> None:
        """Moves to a time (epoch seconds), up to the next whole microsecond. ValueError when it is in the past."""
        if when < self._now - _MICROSECOND:
            raise ValueError(f"the clock stands at {self._now}; it does not go back to {when}")
        micros = math.ceil(when * 1e6)
        if micros / 1e6 < when:  # the product was rounded down
            micros += 1
        moved = max(self._now, micros / 1e6)
        self._monotonic += moved - self._now
        self._now = moved

    def step_wall(self, seconds: float) -> None:
        """Somebody sets the wall clock, back when negative; the monotonic clock does not notice."""
        self._now = round(self._now + seconds, 6)
