"""Tribunal: a virtual model whose answer comes of several drafts, of critics and of a judge."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from llmop.manifest import quantity
from llmop.manifest.schema_v1alpha1 import fields

MOST_DRAFTS = 16
Temperature = Annotated[float, Field(ge=0, le=2)]
Text = Annotated[str, Field(max_length=16_384)]


class Drafter(fields.Fields):
    """Who writes drafts."""

    model: fields.ModelName = Field(
        description="A model as clients name it: that of a deployment. No tribunal."
    )
    temperature: Temperature | None = Field(
        default=None, description="Of its drafts. Left out: what the client asks for, else the engine's own."
    )
    n: int = Field(
        default=1, ge=1, le=MOST_DRAFTS, description="Drafts that it writes, each with a seed of its own."
    )
    weight: float = Field(
        default=1.0,
        gt=0,
        le=100,
        description="Its drafts' scores are multiplied by this when the best is looked for.",
    )


class Member(fields.Fields):
    """A critic, or the judge."""

    model: fields.ModelName = Field(
        description="A model as clients name it: that of a deployment. No tribunal."
    )
    temperature: Temperature | None = Field(
        default=None,
        description="Of its answers. Left out: the engine's own; for the judge first what the client asks for.",
    )


class Prompts(fields.Fields):
    """What members are told, instead of the built-in words. Drafts, critiques and the form of a critique are added to it."""

    critique: Text | None = Field(default=None, description="What a critic is told to do.")
    refine: Text | None = Field(
        default=None, description="What an author is told who gets critiques of its draft."
    )
    judge: Text | None = Field(default=None, description="What the judge is told to do.")


class TribunalSpec(fields.Fields):
    """Drafters answer, critics read all drafts without names and in shuffled order, authors refine, the judge writes the answer."""

    drafters: list[Drafter] = Field(
        min_length=1,
        max_length=MOST_DRAFTS,
        description="Who writes drafts, all at once; at most 16 drafts in all.",
    )
    critics: list[Member] = Field(min_length=1, max_length=MOST_DRAFTS, description="Who reads all drafts.")
    judge: Member = Field(description="Who writes the answer from drafts and critiques.")
    rounds: int = Field(
        default=1,
        ge=0,
        le=5,
        description="How often authors refine their drafts; critics read them again each time.",
    )
    min_successful: int = Field(
        default=1,
        ge=1,
        le=MOST_DRAFTS,
        description="Drafts that must come; with fewer the client gets an error.",
    )
    agreement: float = Field(
        default=9.0,
        ge=0,
        le=10,
        description="When every critic puts the same draft first and gives it this score of 10 or more, it is the answer"
        " and nothing else is asked.",
    )
    early_stop: bool = Field(default=True, description="false: critics who agree do not end it early.")
    round_timeout: fields.PositiveDuration = Field(
        default="60s", description="Time for one step; who has not answered then is left out."
    )
    timeout: fields.PositiveDuration = Field(
        default="4m", description="Time in all; then the best draft is the answer."
    )
    max_tokens: int = Field(
        default=32_000,
        ge=256,
        le=100_000_000,
        description="Tokens of all prompts and answers together; when they are spent, the best draft is the answer.",
    )
    round_max_tokens: int | None = Field(
        default=None, ge=256, le=100_000_000, description="Tokens of all prompts and answers of one step."
    )
    answer_tokens: int = Field(
        default=1024, ge=16, le=1_000_000, description="The longest answer of a member, in tokens."
    )
    prompts: Prompts = Field(default_factory=Prompts, description="Other words than the built-in ones.")
    stream: Literal["Progress", "Final"] = Field(
        default="Progress",
        description="What a stream holds: progress events and the answer, or the answer only.",
    )
    on_error: Literal["BestDraft", "Error"] = Field(
        default="BestDraft",
        description="What the client gets when the judge fails or a budget is spent: the best draft, or an error.",
    )

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        problems = []
        drafts = sum(each.n for each in self.drafters)
        if drafts > MOST_DRAFTS:
            problems.append(
                (
                    "drafters",
                    f"write {drafts} drafts together; at most {MOST_DRAFTS} are allowed, lower their n",
                )
            )
        elif self.min_successful > drafts:
            problems.append(
                (
                    "minSuccessful",
                    f"{self.min_successful} is more than the {drafts} drafts that there can be; lower it",
                )
            )
        if quantity.whole_seconds(self.round_timeout) > quantity.whole_seconds(self.timeout):
            problems.append(
                (
                    "roundTimeout",
                    f"{self.round_timeout!r} is longer than timeout {self.timeout!r}; shorten it",
                )
            )
        if self.round_max_tokens and self.round_max_tokens > self.max_tokens:
            problems.append(
                (
                    "roundMaxTokens",
                    f"{self.round_max_tokens} is more than maxTokens {self.max_tokens}; lower it",
                )
            )
        if problems:
            raise fields.invalid_below(*problems)
        return self
