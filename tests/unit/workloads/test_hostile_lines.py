"""Files of requests that are not what they should be: every line that is wrong is named, with what to do about it."""

from __future__ import annotations

import io
import json

import pytest
from tests.unit.workloads.workloads_rig import CHAT, row

from llmop.workloads.answers import Answer, answered
from llmop.workloads.lines import LINE_LIMIT, Row, parse
from llmop.workloads.shelf import lines

GOOD = json.dumps(row(1)).encode()


@pytest.mark.parametrize(
    "line, words",
    [
        (
            b"\xef\xbb\xbf" + GOOD,
            "the line begins with a byte order mark: save the file as UTF-8 without one",
        ),
        ("{}".encode("utf-16"), "the file is UTF-16: save it as UTF-8"),
        (
            '{"custom_id": "caf\u00e9"}'.encode("latin-1"),
            "the line is not UTF-8: byte 19 of it is 0xe9; save the file as UTF-8",
        ),
        (b"{broken", "the line is not valid JSON: unexpected character"),
        (
            GOOD + GOOD,
            f"the line is not valid JSON: unexpected content after document at column {len(GOOD) + 1}",
        ),
        (GOOD[:-1], f"the line is not valid JSON: unexpected end of data at column {len(GOOD)}"),
        (b"[" * 100_000, "the line is not valid JSON: "),
        (b"[1]", "the line must hold a JSON object"),
        (b"null", "the line must hold a JSON object"),
        (b" " * (LINE_LIMIT + 1), f"the line is longer than {LINE_LIMIT} bytes: put less into one request"),
    ],
    ids=["bom", "utf-16", "latin-1", "broken", "two in one", "cut off", "deep", "array", "null", "long"],
)
def test_a_line_that_cannot_be_read(line: bytes, words: str) -> None:
    (problem,) = parse(line, 7, CHAT)
    assert not isinstance(problem, str | dict)
    assert (7, True) == (problem.line, problem.message.startswith(words)), problem


def test_everything_that_is_wrong_with_a_line_is_said_at_once() -> None:
    bad = {"custom_id": "", "method": "GET", "url": "/v1/embeddings", "body": {"stream": True}}
    found = parse(json.dumps(bad).encode(), 3, CHAT)
    assert not isinstance(found, Row)
    assert [
        ("custom_id", "the field 'custom_id' must be a text of 1 to 512 bytes"),
        ("method", "the field 'method' must be POST"),
        ("url", "the field 'url' must be /v1/chat/completions, the endpoint of the batch"),
        ("body.model", "the field 'body.model' must name a model"),
        ("body.stream", "the field 'body.stream' must be false or left out: a row has one answer"),
    ] == [(each.param, each.message) for each in found]
    assert {3} == {each.line for each in found}


def test_lines_of_windows_and_a_last_line_without_an_end_are_as_good() -> None:
    content = b"\r\n".join([GOOD, b"", b"  ", GOOD, GOOD])
    read = list(lines(io.BytesIO(content)))
    assert [1, 4, 5] == [number for number, *_ in read]
    for number, start, line, length in read:
        assert isinstance(parse(line, number, CHAT), Row)
        assert row(1) == json.loads(content[start : start + length])


def test_a_row_that_is_nested_too_deeply_to_be_asked_is_named() -> None:
    """It can be read and not written: run, it would take the whole batch with it."""
    deep = json.dumps(row(1)).replace('"messages": [', '"messages": [' + "[" * 300 + "]" * 300 + ", ")
    found = parse(deep.encode(), 2, CHAT)
    assert not isinstance(found, Row)
    assert [("body", 2)] == [(each.param, each.line) for each in found]
    assert "nested too deeply" in found[0].message


def test_an_answer_that_is_nested_too_deeply_is_an_error_of_its_row_alone() -> None:
    line = json.loads(answered("r", "c", Answer(200, b"[" * 300 + b"]" * 300)))
    assert ("c", None, "answer_not_kept") == (line["custom_id"], line["response"], line["error"]["code"])
