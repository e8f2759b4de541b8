"""What critics say of drafts: the shape their JSON must have, and what follows from their scores. Pure."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

BEST = 10.0  # scores go from 0 to this
_FAR = 2.0  # that much below the others is another opinion, not noise
_MOST_TRIES = 50  # places in an answer where JSON may begin
_MOST_FINDINGS, _ASKED_FINDINGS = 20, 4
_LONGEST_FINDING, _LONGEST_ASKED = 2000, 200  # characters


class Review(NamedTuple):
    """Of the draft with this label."""

    label: str
    score: float
    findings: tuple[str, ...]


class Unusable(NamedTuple):
    """Why an answer is no critique."""

    problem: str


def form(labels: Sequence[str]) -> dict[str, Any]:
    """The shape of a critic's answer as OpenAI's `response_format`, for engines that can hold a model to it.

    It is narrower than what `read` takes: a model that is held to it cannot go on for ever, but for spaces.
    """
    whole = list(range(int(BEST) + 1))
    finding = {"type": "string", "maxLength": _LONGEST_ASKED}
    review = _strict(
        score={"type": "integer", "enum": whole},
        findings={"type": "array", "items": finding, "maxItems": _ASKED_FINDINGS},
    )
    schema = _strict(reviews=_strict(**dict.fromkeys(sorted(labels), review)))
    return {"type": "json_schema", "json_schema": {"name": "reviews", "strict": True, "schema": schema}}


def _strict(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def read(text: str, labels: Sequence[str]) -> tuple[Review, ...] | Unusable:
    """The reviews in a critic's answer, by label. Words around the JSON are passed over, for models think aloud; the JSON itself has to
    have a review of every draft, and of nothing else.
    """
    found = _object(text)
    if found is None:
        return Unusable('there is no JSON object with "reviews" in the answer')
    rows = found["reviews"]
    if not isinstance(rows, dict):
        return Unusable('"reviews" is not an object')
    rows = {label.strip(): row for label, row in rows.items()}
    if strange := [label for label in rows if label not in labels]:
        return Unusable(f'"{strange[0][:20]}" is reviewed, and there is no such draft')
    if missing := [label for label in labels if label not in rows]:
        return Unusable(f"no review of draft {', '.join(missing)}")
    kept = []
    for label in sorted(labels):
        review = _review(label, rows[label])
        if isinstance(review, Unusable):
            return review
        kept.append(review)
    return tuple(kept)


def _object(text: str) -> dict[str, Any] | None:
    decoder = json.JSONDecoder()
    place = -1
    for _ in range(_MOST_TRIES):
        place = text.find("{", place + 1)
        if place < 0:
            return None
        try:
            value, _end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and "reviews" in value:
            return value
    return None


def _review(label: str, row: Any) -> Review | Unusable:
    place = f"reviews.{label}"
    if not isinstance(row, dict):
        return Unusable(f"{place} is not an object")
    score, findings = row.get("score"), row.get("findings")
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        return Unusable(f"{place}.score is not a number")
    if not 0 <= score <= BEST:
        return Unusable(f"{place}.score is not between 0 and {BEST:g}")
    if not isinstance(findings, list) or not all(isinstance(each, str) for each in findings):
        return Unusable(f"{place}.findings is not a list of texts")
    kept = tuple(each[:_LONGEST_FINDING] for each in findings[:_MOST_FINDINGS])
    return Review(label, float(score), kept)


def standing(scores: Sequence[float]) -> float:
    """One number for several scores. The lowest counts as much as all together: whoever sees a fault that the others do not see is
    heard.
    """
    return (sum(scores) / len(scores) + min(scores)) / 2


def dissents(reviews: Sequence[Mapping[str, float]]) -> tuple[bool, ...]:
    """For each critic's scores by label, whether it is of another opinion than all together: it puts another draft before the one that
    leads, or thinks far less of that one.
    """
    if len(reviews) < 2:
        return (False,) * len(reviews)
    means = {label: sum(each[label] for each in reviews) / len(reviews) for label in reviews[0]}
    leads = max(sorted(means), key=lambda label: means[label])
    return tuple(max(each.values()) > each[leads] or each[leads] <= means[leads] - _FAR for each in reviews)


def agreed(reviews: Sequence[Mapping[str, float]], threshold: float) -> str | None:
    """The label of the draft that every critic puts first, alone and with at least `threshold`; None where there is no such draft."""
    firsts = set()
    for each in reviews:
        best = max(each.values())
        first = [label for label, score in each.items() if score == best]
        if len(first) != 1 or best < threshold:
            return None
        firsts.add(first[0])
    return firsts.pop() if len(firsts) == 1 else None
