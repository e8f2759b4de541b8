"""A Tribunal: a virtual model whose answer comes of several drafts, of critics who read them, and of a judge."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A critic or the judge. `temperature` None = the engine's own."""

    model: str
    temperature: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Drafter:
    """Writes `copies` drafts, whose scores are multiplied by `weight`. `temperature` None = what the client asks for."""

    model: str
    temperature: float | None = None
    copies: int = 1
    weight: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Prompts:
    """What members are told to do; "" = our own words."""

    critique: str = ""
    refine: str = ""
    judge: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Tribunal:
    """Times are in seconds. `max_tokens` bounds prompts and answers of all calls together, `round_max_tokens` (0 = not apart) those of
    one step, `answer_tokens` one answer. `agreement` is the score, of 10, from which critics who all put the same draft first end it
    early; None = never.
    """

    name: str
    namespace: str
    drafters: tuple[Drafter, ...]
    critics: tuple[Member, ...]
    judge: Member
    rounds: int = 1
    min_successful: int = 1
    agreement: float | None = 9.0
    round_timeout_s: float = 60.0
    timeout_s: float = 240.0
    max_tokens: int = 32_000
    round_max_tokens: int = 0
    answer_tokens: int = 1024
    prompts: Prompts = Prompts()
    shows_progress: bool = True
    falls_back: bool = True

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that it asks, once, in the order of the manifest."""
        asked = [
            *(each.model for each in self.drafters),
            *(each.model for each in self.critics),
            self.judge.model,
        ]
        return tuple(dict.fromkeys(asked))
