"""A head that comes again is recognised only where the parser would have read the same."""

import pytest

from llmop.gateway.repeats import Shape, shape_of

HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nContent-Length: %b\r\nx-api-key: k\r\n\r\n"
MESSAGE = HEAD % b"2" + b"{}"


def shape() -> Shape:
    found = shape_of(MESSAGE)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("number", "body"), [(b"2", b"{}"), (b"0", b""), (b"007", b"1234567"), (b"12", b"a" * 12)]
)
def test_the_length_may_differ(number: bytes, body: bytes) -> None:
    message = HEAD % number + body
    start = shape().body(message)
    assert body == message[start:]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        MESSAGE[:-1],
        MESSAGE + b"P",
        MESSAGE + MESSAGE,
        MESSAGE.replace(b"x-api-key: k", b"x-api-key: K"),
        MESSAGE.replace(b"host: x", b"host: y"),
        HEAD % b"" + b"{}",
        HEAD % b"-2" + b"{}",
        HEAD % b"+2" + b"{}",
        HEAD % b"2 " + b"{}",
        HEAD % b"2, 2" + b"{}",
        HEAD % "²".encode() + b"{}",
        HEAD % b"0000000000000002" + b"{}",
        HEAD % b"2\r\ncontent-length: 2" + b"{}",
        HEAD % b"2\r\ntransfer-encoding: chunked" + b"{}",
        MESSAGE.replace(b"\r\n", b"\n"),
    ],
)
def test_anything_else_is_for_the_parser(message: bytes) -> None:
    assert -1 == shape().body(message)


@pytest.mark.parametrize(
    "message",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\n\r\ncontent-length: 2\r\n",
        MESSAGE.replace(b"Length: ", b"Length:"),
        b"content-length: 2",
    ],
)
def test_only_the_common_form_has_a_shape(message: bytes) -> None:
    assert shape_of(message) is None
