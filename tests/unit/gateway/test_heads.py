"""What is read from heads and what is passed on."""

import pytest

from llmop.gateway.heads import Headers, read_request_head, read_response_head

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
    assert b"x-total-time: 12" in head.forward.lower()
    assert b"content-type: text/event-stream" in head.forward.lower()
    for gone in (b"x-hop", b"theirs", b"cookie", b"chunked"):
        assert gone not in head.forward.lower()
    assert head.stream


def test_an_answer_without_chunks_needs_a_length_unless_it_has_no_body() -> None:
    assert not read_response_head([], 200).framed
    assert read_response_head([], 204).framed
