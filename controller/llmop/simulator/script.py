"""Answers that a test has written: a file of rules, of which the first that fits a prompt says the answer.

`[{"contains": "critic", "text": "{...}"}, {"contains": "", "text": "Hello"}]`; where none fits, the answer is made up as always.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .text import END, Answer, Token, token_id

_WORD = re.compile(r"\s*\S+\s*\Z|\s*\S+|\s+\Z")


class Rule(NamedTuple):
    """`text` answers prompts that hold `contains`; the empty one is in all of them."""

    contains: str
    text: str


def read(path: str) -> tuple[Rule, ...]:
    """Raises ValueError for a file that is missing or holds something else."""
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path!r}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path!r} is not JSON: {error}") from error
    if not isinstance(rows, list):
        raise ValueError(f"{path!r} is not a list of rules")
    for number, row in enumerate(rows):
        if (
            not isinstance(row, dict)
            or row.keys() != {"contains", "text"}
            or not all(isinstance(value, str) for value in row.values())
            or not row["text"].strip()
        ):
            raise ValueError(
                f'{path!r}: rule {number} is not {{"contains": "...", "text": "..."}} with a text in it'
            )
    return tuple(Rule(**row) for row in rows)


def scripted(rules: Sequence[Rule], prompt: str, *, most: int, stop: Sequence[str] = ()) -> Answer | None:
    """What the first fitting rule says, cut at `most` tokens or at a stop sequence, which stays in the text; None where none fits."""
    rule = next((each for each in rules if each.contains in prompt), None)
    if rule is None:
        return None
    tokens: list[Token] = []
    text = ""
    for word in _WORD.findall(rule.text):
        if len(tokens) == most:
            return Answer(tuple(tokens), text, "length")
        tokens.append(Token(token_id(word), word, -0.5, False))
        text += word
        if any(text.endswith(each) for each in stop):
            return Answer(tuple(tokens), text, "stop_sequence")
    if len(tokens) < most:
        return Answer((*tokens, END), text, "eos_token")
    return Answer(tuple(tokens), text, "length")
