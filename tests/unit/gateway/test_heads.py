"""What is read from heads and what is passed on."""

import pytest

from llmop.gateway.heads import Headers, Wishes, read_request_head, read_response_head
from llmop.gateway.queue import Priority

HOST = (b"host", b"gateway")


def test_the_clients_key_and_hop_by_hop_fields_stop_here() -> None:
    headers: Headers = [
        HOST,
        (b"authorization", b"bearer secret"),
        (b"cookie", b"session"),
        (b"connection", b"close, X-Private"),
        (b"x-private", b"1"),
        (b"te", b"trailers"),
        (b"accept-encoding", b"gzip"),
        (b"content-type", b"application/json"),
        (b"traceparent", b"00-1-2-3"),
    ]
    head = read_request_head(headers, "1.1")
    assert b"content-type: application/json\r\ntraceparent: 00-1-2-3\r\n" == head.forward
    assert (b"secret", None) == (head.key, head.problem)


def test_a_key_may_come_in_its_own_header() -> None:
    assert b"secret" == read_request_head([HOST, (b"x-api-key", b"secret")], "1.1").key


@pytest.mark.parametrize("value", [b"", b"a b", b"x" * 129, b"\xff"])
def test_request_ids_that_are_none_are_replaced(value: bytes) -> None:
    assert read_request_head([HOST, (b"x-request-id", value)], "1.1").request_id is None


@pytest.mark.parametrize(
    ("headers", "version", "status"),
    [
        ([], "1.1", 400),
        ([HOST, HOST], "1.1", 400),
        ([HOST], "2.0", 505),
        ([HOST], "0.9", 505),
        ([HOST, (b"transfer-encoding", b"gzip, chunked")], "1.1", 501),
        ([HOST, (b"transfer-encoding", b"chunked")], "1.0", 400),
        ([HOST, (b"content-encoding", b"gzip")], "1.1", 415),
        ([HOST, (b"expect", b"a-miracle")], "1.1", 417),
    ],
)
def test_what_cannot_be_trusted_is_refused(headers: Headers, version: str, status: int) -> None:
    problem = read_request_head(headers, version).problem
    assert problem is not None
    assert status == problem.status


def test_an_answers_own_fields_are_passed_on() -> None:
    headers: Headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"keep-alive, X-Hop"),
        (b"x-hop", b"1"),
        (b"x-total-time", b"12"),
        (b"x-request-id", b"theirs"),
        (b"set-cookie", b"a=b"),
    ]
    head = read_response_head(headers, 200)
    assert head.framed
    assert head.start.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"x-total-time: 12" in head.start.lower()
    assert b"content-type: text/event-stream" in head.start.lower()
    for gone in (b"x-hop", b"theirs", b"cookie", b"chunked"):
        assert gone not in head.start.lower()
    assert head.stream


def test_an_answer_without_chunks_needs_a_length_unless_it_has_no_body() -> None:
    assert not read_response_head([], 200).framed
    assert read_response_head([], 204).framed


def test_how_a_request_is_to_wait_stays_at_the_gateway() -> None:
    wishes = [(b"x-llmop-timeout", b"2.5"), (b"x-llmop-priority", b"Bulk"), (b"x-llmop-progress", b"1")]
    head = read_request_head([HOST, *wishes, (b"x-other", b"1")], "1.1")
    assert head.problem is None
    assert head.wishes == Wishes(progress=True, patience=2.5, priority=Priority.BULK)
    assert head.forward == b"x-other: 1\r\n"
    assert read_request_head([HOST], "1.1").wishes == Wishes()


@pytest.mark.parametrize("name", [b"x-llmop-timeout", b"x-llmop-priority"])
@pytest.mark.parametrize("value", [b"", b"-1", b"0", b"0.0", b"1e3", b"inf", b"interactive", b"\xff" * 200])
def test_a_wish_that_cannot_be_read_is_refused_with_its_name(name: bytes, value: bytes) -> None:
    problem = read_request_head([HOST, (name, value)], "1.1").problem
    assert problem is not None
    assert (problem.status, problem.message.startswith(name.decode())) == (400, True)
    assert len(problem.message) < 150
