"""Answers by a script."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmop.simulator.options import parse_options
from llmop.simulator.script import Rule, read, scripted

RULES = (Rule("critic", '{"a":  [1, 2]}\n'), Rule("", "Hello there, you"))


def test_the_first_rule_that_fits_answers_word_by_word() -> None:
    found = scripted(RULES, "you are a critic", most=100)

    assert found is not None
    assert found.text == '{"a":  [1, 2]}\n'
    assert "".join(token.text for token in found.tokens if not token.special) == found.text
    assert found.finish_reason == "eos_token"
    other = scripted(RULES, "hi", most=100)
    assert other is not None
    assert other.text == "Hello there, you"


def test_limits_and_stop_sequences_end_it() -> None:
    short = scripted(RULES, "hi", most=2)
    stopped = scripted(RULES, "hi", most=100, stop=[","])

    assert short is not None
    assert (short.text, short.finish_reason, len(short.tokens)) == ("Hello there,", "length", 2)
    assert stopped is not None
    assert (stopped.text, stopped.finish_reason) == ("Hello there,", "stop_sequence")


def test_where_none_fits_the_simulator_makes_something_up() -> None:
    assert scripted(RULES[:1], "hi", most=2) is None


def test_the_option_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps([{"contains": "x", "text": "y"}]))

    assert parse_options(["--answers", str(path)], {}).answers == (Rule("x", "y"),)
    assert parse_options([], {}).answers == ()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read"),
        ("{", "is not JSON"),
        ("{}", "is not a list of rules"),
        ('[{"contains": "x"}]', "rule 0 is not"),
        ('[{"contains": "x", "text": " "}]', "rule 0 is not"),
        ('[{"contains": "x", "text": "y", "more": 1}]', "rule 0 is not"),
    ],
)
def test_a_file_that_is_no_script_is_refused(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "answers.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(ValueError, match=words):
        read(str(path))
