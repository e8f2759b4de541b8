"""What one key uses of one model: reserved when a request is admitted, counted and written down when it ends."""

from typing import Any

from llmop.domain.client import ClientKey
from llmop.gateway import limits
from llmop.gateway.limiter import Exceeded, Limiter
from llmop.gateway.limits import Lengths
from llmop.gateway.metrics import REFUSED, SHADOWED, Counts, ModelCounts
from llmop.gateway.tally import Accounts
from llmop.gateway.usage import Usage

NOTHING = -1  # what a request holds that no limit counts


class Bill:
    """Made once per key and model of a table: what a request needs is looked up here no more."""

    __slots__ = (
        "_accounts",
        "_counts",
        "_entry",
        "_key",
        "_learn",
        "_lengths",
        "_meter",
        "_model",
        "_of_model",
    )

    def __init__(
        self,
        key: ClientKey,
        model: str,
        *,
        counts: Counts,
        of_model: ModelCounts,
        lengths: Lengths,
        limiter: Limiter,
        accounts: Accounts,
    ) -> None:
        self._key = key.name
        self._model = model
        self._counts = counts
        self._of_model = of_model
        self._lengths = lengths
        self._learn = lengths.learn
        self._meter = limiter.meter(key.name)
        self._accounts = accounts
        self._entry = accounts.entry(key.name, model)

    def reserve(
        self, body: bytes, asked: dict[str, Any] | None, now: float, generates: bool
    ) -> int | Exceeded:
        """What the request holds until `settle`, in tokens, or NOTHING. One that is beyond a limit is written down as such. `asked` is the
        body's JSON, where it was read.
        """
        meter = self._meter
        if meter is None:
            return NOTHING
        tokens, most = 0, meter.most_tokens
        if generates and most:
            tokens = limits.need(body, asked, self._lengths.p90(now))
            if tokens > most:
                tokens = most
        found = meter.reserve(tokens, now)
        if found is None:
            return tokens
        self._counts.limited[found.limit][SHADOWED if found.shadow else REFUSED] += 1
        entry = self._entry or self._accounts.entry(self._key, self._model)
        if entry is not None:
            entry.limited()
        return found

    def answered(self, reserved: int, prompt: int, completion: int, estimated: bool) -> None:
        """For an answer that came as a whole, of its Usage the fields: `spent` and `settle` at once, but for the metrics of the model."""
        meter = self._meter
        if reserved >= 0 and meter is not None:
            meter.settle(reserved, prompt + completion)
        learn = self._learn
        learn(completion)
        entry = self._entry or self._accounts.entry(self._key, self._model)
        if entry is not None:
            entry.used(prompt, completion, estimated)

    def spent(self, used: Usage) -> None:
        """An answer has come to its end, or as far as it came."""
        self._of_model.spent(*used)
        self._learn(used.completion)

    def settle(self, reserved: int, used: Usage | None) -> None:
        """Nothing more is used, however it ended: what was reserved becomes what was used, and that is written down. Once per request."""
        if reserved >= 0 and self._meter is not None:
            self._meter.settle(reserved, 0 if used is None else used.prompt + used.completion)
        if used is not None:
            entry = self._entry or self._accounts.entry(self._key, self._model)
            if entry is not None:
                entry.used(*used)
