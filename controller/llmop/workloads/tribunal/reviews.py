"""What critics say of drafts: the shape their JSON must have, and what follows from their scores. Pure."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

BEST = 10.0  # scores go from 0 to this
_FAR = 2.0  # that much below the others is another opinion, not noise
_MOST_TRIES = 50  # places in an answer where JSON may begin
_MOST_FINDINGS = 20
_LONGEST_FINDING = 2000  # characters


class Review(NamedTuple):
    """Of the draft with this label."""

    label: str
    score: float
    findings: tuple[str, ...]


class Unusable(NamedTuple):
    """Why an answer is no critique."""

    problem: str


def read(text: str, labels: Sequence[str]) -> tuple[Review, ...] | Unusable:
    """The reviews in a critic's answer, by label. Words around the JSON are passed over, for models think aloud; the JSON itself has to
    have exactly one review of every draft.
    """
    found = _object(text)
    if found is None:
        return Unusable('there is no JSON object with "reviews" in the answer')
    rows = found["reviews"]
    if not isinstance(rows, list):
        return Unusable('"reviews" is not a list')
    by_label: dict[str, Review] = {}
    for number, row in enumerate(rows):
        review = _review(row, f"reviews[{number}]")
        if isinstance(review, Unusable):
            return review
        if review.label not in labels:
            return Unusable(f'reviews[{number}].draft is "{review.label[:20]}", and there is no such draft')
        if review.label in by_label:
            return Unusable(f'draft "{review.label}" is reviewed twice')
        by_label[review.label] = review
    missing = [label for label in labels if label not in by_label]
    if missing:
        return Unusable(f"no review of draft {', '.join(missing)}")
    return tuple(by_label[label] for label in sorted(by_label))


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


def _review(row: Any, place: str) -> Review | Unusable:
    if not isinstance(row, dict):
        return Unusable(f"{place} is not an object")
    label, score, findings = row.get("draft"), row.get("score"), row.get("findings")
    if not isinstance(label, str):
        return Unusable(f"{place}.draft is not a text")
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        return Unusable(f"{place}.score is not a number")
    if not 0 <= score <= BEST:
        return Unusable(f"{place}.score is not between 0 and {BEST:g}")
    if not isinstance(findings, list) or not all(isinstance(each, str) for each in findings):
        return Unusable(f"{place}.findings is not a list of texts")
    kept = tuple(each[:_LONGEST_FINDING] for each in findings[:_MOST_FINDINGS])
    return Review(label.strip(), float(score), kept)


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
