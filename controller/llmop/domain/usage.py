"""What clients have used, per hour, key and model."""

import dataclasses
import enum

HOUR = 3600


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Amount:
    """`requests` are those that were answered, `estimated` those of them whose tokens the engine did not say; `limited` were beyond a limit of
    their key.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: int = 0
    limited: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(
            requests=self.requests + other.requests,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            estimated=self.estimated + other.estimated,
            limited=self.limited + other.limited,
        )

    def beyond(self, other: "Amount") -> "Amount":
        """What this has more than `other`, nowhere less than nothing."""
        return Amount(
            requests=max(0, self.requests - other.requests),
            prompt_tokens=max(0, self.prompt_tokens - other.prompt_tokens),
            completion_tokens=max(0, self.completion_tokens - other.completion_tokens),
            estimated=max(0, self.estimated - other.estimated),
            limited=max(0, self.limited - other.limited),
        )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class UsageRow:
    """`hour` is when it began, in epoch seconds; `key` is namespace/name, a bare name for a key of a gateway's file, "" for none. What
    was added up over is 0 or "".
    """

    hour: int = 0
    key: str = ""
    model: str = ""
    amount: Amount


class UsageBy(enum.StrEnum):
    """What sums are made for."""

    HOUR = "hour"
    KEY = "key"
    MODEL = "model"
