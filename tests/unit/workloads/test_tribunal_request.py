"""What a client may ask of a tribunal."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from llmop.workloads.refusals import Refused
from llmop.workloads.tribunal import request

BODY = {"model": "panel", "messages": [{"role": "user", "content": "Why?"}]}


def test_what_is_null_was_left_out() -> None:
    nothing = {"seed": None, "tools": None, "stream": None, "max_tokens": None}
    assert request.read(orjson.dumps(BODY | nothing)) == request.read(orjson.dumps(BODY))


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"seed": "a"}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"tools": []}, "tools"),
        ({"n": 2}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": "5"}, "max_completion_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": 1}, "stream_options"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_field(wanted: dict[str, Any], field: str) -> None:
    with pytest.raises(Refused) as caught:
        request.read(orjson.dumps(BODY | wanted))
    assert (400, field) == (caught.value.status, caught.value.param)
    assert field in str(caught.value)
