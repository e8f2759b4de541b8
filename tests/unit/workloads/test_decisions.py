"""What is decided without doing anything: windows, judgements, lines, steps."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from llmop.workloads import calls, window
from llmop.workloads.answers import Answer, answered, says, unanswered
from llmop.workloads.batch import Batch, Status, Step, begin, begin_end, describe, end, next_step, window_s
from llmop.workloads.judgement import (
    MOST_ATTEMPTS,
    Again,
    Broken,
    GiveUp,
    Keep,
    Outcome,
    Overdue,
    Unreachable,
    judge,
)
from llmop.workloads.lines import Row, parse
from llmop.workloads.window import Window

CHAT = "/v1/chat/completions"
BATCH = Batch(
    number=1,
    id="batch_x",
    owner="o",
    endpoint=CHAT,
    input_file="file-i",
    window="1h",
    created_at=100.0,
    expires_at=3700.0,
)
RUNNING = begin(BATCH, 10, 101.0)


def test_a_window_doubles_per_round_until_it_is_refused_then_halves_and_grows_by_one() -> None:
    found = Window(most=64)
    for _ in range(12):
        found = window.went_well(found)
    assert 16 == found.size
    found = window.slowed(found, sent_at=5.0, now=10.0, after_s=2.0)
    assert (8, 12.0) == (found.size, found.paused_until)
    assert not found.has_room(0, 11.9)
    assert found.has_room(7, 12.0)
    assert not found.has_room(8, 12.0)
    for _ in range(8):
        found = window.went_well(found)
    assert 8.9 < found.size <= 9


@pytest.mark.parametrize("limit", [1, 2, 8])
def test_a_limit_that_stays_where_it_is_is_not_run_against_in_every_round(limit: int) -> None:
    found = Window(most=64)
    refusals = 0
    for now in range(1000):
        if int(found.size) > limit:
            found = window.slowed(found, sent_at=now, now=now + 0.5, after_s=1.0)
            refusals += 1
        else:
            found = window.went_well(found)
    assert 1 < refusals < 70  # a pause each


def test_above_where_it_was_refused_last_a_window_grows_as_before() -> None:
    found = window.slowed(Window(most=64, size=8.0), sent_at=1.0, now=2.0, after_s=1.0)
    answers = 0
    while found.size < 8:
        found = window.went_well(found)
        answers += 1
    assert answers < 8 * 20
    for _ in range(9 + 10):
        found = window.went_well(found)
    assert found.size > 9.9


def test_refusals_of_one_round_count_once_and_one_request_always_goes() -> None:
    found = Window(most=64, size=32.0)
    for _ in range(32):
        found = window.slowed(found, sent_at=5.0, now=10.0, after_s=1.0)
    assert 16 == found.size
    for now in range(20, 40):
        found = window.slowed(found, sent_at=now - 0.5, now=float(now), after_s=0.0)
    assert 1 == found.size
    assert found.has_room(0, 100.0)
    assert 64 == window.went_well(Window(most=64, size=64.0)).size


@pytest.mark.parametrize(
    ("outcome", "failures", "verdict"),
    [
        (Answer(200, b"{}"), 0, Keep(Answer(200, b"{}"))),
        (Answer(404, b"{}"), 0, Keep(Answer(404, b"{}"))),
        (Answer(500, b"{}"), 0, Keep(Answer(500, b"{}"))),
        (Answer(429, b"", "", 7.0), 0, Again(7.0, True, "the gateway answers 429")),
        (
            Answer(503, b'{"error":{"message":"none is ready"}}', "", 9e9),
            99,
            Again(300.0, True, "none is ready"),
        ),
        (Answer(503, b""), 0, Again(5.0, True, "the gateway answers 503")),
        (Answer(502, b"", "", 1.0), 0, Again(1.0, False, "")),
        (Answer(502, b""), 3, Again(8.0, False, "")),
        (Answer(502, b"x"), MOST_ATTEMPTS - 1, Keep(Answer(502, b"x"))),
        (Unreachable("refused"), 99, Again(2.0, True, "the gateway cannot be reached: refused")),
        (Broken("reset"), 0, Again(1.0, False, "")),
        (
            Broken("reset"),
            MOST_ATTEMPTS - 1,
            GiveUp("request_failed", "the answer broke off 5 times: reset"),
        ),
        (Overdue(3600.0), 0, GiveUp("request_timeout", "there was no answer in 3600 s")),
    ],
)
def test_what_an_outcome_means(outcome: Outcome, failures: int, verdict: Keep | GiveUp | Again) -> None:
    assert verdict == judge(outcome, failures)


def test_steps_of_a_batch() -> None:
    assert Step.VALIDATE is next_step(BATCH, 9e9)
    assert Step.EXECUTE is next_step(RUNNING, 3699.0)
    assert Step.EXPIRE is next_step(RUNNING, 3700.0)
    full = dataclasses.replace(RUNNING, completed=7, failed=3)
    assert Step.FINISH is next_step(full, 9e9)  # what is answered is answered, however late it is looked at
    ending = begin_end(RUNNING, Status.CANCELLED, ("file-a", "file-b"), 102.0)
    assert Status.CANCELLING is ending.status
    assert Step.WRITE is next_step(ending, 9e9)
    ended = end(ending, 0, 10, 103.0)
    assert Step.NOTHING is next_step(ended, 9e9)
    assert (Status.CANCELLED, "", "file-b") == (ended.status, ended.output_file, ended.error_file)


def test_files_are_shown_when_they_are_there() -> None:
    ending = begin_end(RUNNING, Status.COMPLETED, ("file-a", "file-b"), 102.0)
    assert describe(ending, "the disk is full")["output_file_id"] is None
    assert {"waiting": "the disk is full"} == describe(ending, "the disk is full")["llmop"]
    shown = describe(end(ending, 10, 0, 103.0), "not any more")
    assert ("file-a", None) == (shown["output_file_id"], shown["error_file_id"])
    assert (101, 102, 103) == (shown["in_progress_at"], shown["finalizing_at"], shown["completed_at"])
    assert "llmop" not in shown


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("24h", 86_400),
        ("90m", 5400),
        ("30d", 2_592_000),
        ("31d", None),
        ("0h", None),
        ("24", None),
        ("-1h", None),
        ("1h30m", None),
        ("٣h", None),
    ],
)
def test_completion_windows(text: str, seconds: float | None) -> None:
    assert seconds == window_s(text)


def row(**changes: Any) -> bytes:
    value = {"custom_id": "a", "method": "POST", "url": CHAT, "body": {"model": "m"}} | changes
    return json.dumps({key: each for key, each in value.items() if each is not None}).encode()


def test_a_good_line() -> None:
    assert Row("a", CHAT, "m", {"model": "m"}) == parse(row(), 1, CHAT)
    assert Row("a", CHAT, "m", {"model": "m"}) == parse(row(method=None, url=None), 1, None)
    assert Row("a", "/v1/embeddings", "m", {"model": "m"}) == parse(row(url="/v1/embeddings"), 1, None)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"\xff", [("invalid_json_line", None)]),
        (b"[]", [("invalid_json_line", None)]),
        (
            b"{}",
            ["missing_required_parameter", "invalid_method", "mismatched_url", "missing_required_parameter"],
        ),
        (row(custom_id="x" * 513), [("invalid_custom_id", "custom_id")]),
        (row(custom_id=""), [("invalid_custom_id", "custom_id")]),
        (row(custom_id="\ud800"), None),
        (row(method="GET"), [("invalid_method", "method")]),
        (row(url="/v1/completions"), [("mismatched_url", "url")]),
        (row(body={}), [("missing_required_parameter", "body.model")]),
        (row(body={"model": "m", "stream": True}), [("unsupported_parameter", "body.stream")]),
        (row(body=[]), [("missing_required_parameter", "body")]),
    ],
)
def test_a_bad_line_says_everything_that_is_wrong(line: bytes, found: list[Any] | None) -> None:
    parsed = parse(line, 7, CHAT)
    assert not isinstance(parsed, Row)
    assert {7} == {problem.line for problem in parsed}
    if found is not None:
        got = [(problem.code, problem.param) for problem in parsed]
        assert found == (got if isinstance(found[0], tuple) else [code for code, _ in got])


def test_results_are_one_line_whatever_was_answered() -> None:
    for body in (b'{\n "a": 1\n}', b"<html>\n</html>", b"\xff\n", b""):
        line = answered("n", "c\n1", Answer(200, body, "id"))
        assert b"\n" not in line
        assert ("c\n1", 200) == (
            json.loads(line)["custom_id"],
            json.loads(line)["response"]["status_code"],
        )
    assert {
        "id": "n",
        "custom_id": None,
        "response": None,
        "error": {"code": "x", "message": "y"},
    } == json.loads(unanswered("n", None, "x", "y"))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'{"error":{"message":"of OpenAI","type":"x"}}', "of OpenAI"),
        (
            b'{"error":"Input validation error: `temperature`","error_type":"validation"}',
            "Input validation error: `temperature`",
        ),
        (
            b"Failed to deserialize the JSON body:\n expected f32",
            "Failed to deserialize the JSON body: expected f32",
        ),
        (b"x" * 1000, "x" * 300),
        (b"[1]", ""),
        (b'{"error":7}', ""),
        (b"", ""),
        (b"\xff", ""),
        (b"\x1b[31mred", ""),
        (b"<html><h1>502</h1></html>", ""),
    ],
)
def test_what_an_error_says(body: bytes, sentence: str) -> None:
    assert says(body) == sentence


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "soon", "", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_time_to_wait_that_is_none_is_not_waited_for(text: str) -> None:
    """It is an engine's, and what sleeps for `nan` seconds fails in the loop."""
    assert calls._seconds(text) is None
    assert calls._seconds("2.5") == 2.5
