"""Fault specs: their words, their errors, and when they are due."""

from __future__ import annotations

import pytest

from llmop.simulator.faults import Fault, Faults, parse_fault


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("crash@load", Fault(action="crash", place="load")),
        ("crash@ready", Fault(action="crash", place="ready")),
        ("crash@request:3", Fault(action="crash", place="request", number=3)),
        ("hang@load", Fault(action="hang", place="load")),
        ("hang@request:1", Fault(action="hang", place="request", number=1)),
        ("fail@request:2", Fault(action="fail", place="request", number=2)),
        ("unhealthy@ready", Fault(action="unhealthy", place="ready")),
        ("cut-stream@token:5", Fault(action="cut-stream", place="token", number=5)),
        ("slow-load:2.5", Fault(action="slow-load", number=2.5)),
        ("exit-code:3", Fault(action="exit-code", number=3)),
    ],
)
def test_a_spec_is_read_and_written_the_same(spec: str, fault: Fault) -> None:
    assert fault == parse_fault(spec)
    assert spec == str(fault)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "want one of crash@load"),
        ("burn@load", "want one of crash@load"),
        ("crash", "want one of crash@load"),
        ("crash@token:1", "want one of crash@load"),
        ("crash@request", "want a whole number from 1"),
        ("crash@request:0", "want a whole number from 1"),
        ("crash@request:x", "not 'x'"),
        ("crash@load:1", "crash@load takes no number"),
        ("slow-load:", "'' is not a number of seconds"),
        ("slow-load:nan", "'nan' is not a number of seconds"),
        ("slow-load:-1", "'-1' is not a number of seconds"),
        ("exit-code:256", "from 1 to 255"),
    ],
)
def test_a_wrong_spec_is_refused_by_name(spec: str, words: str) -> None:
    with pytest.raises(ValueError, match="fault") as error:
        parse_fault(spec)
    assert repr(spec) in str(error.value)
    assert words in str(error.value)


def test_a_crash_is_due_once_and_a_hang_from_its_request_on() -> None:
    faults = Faults((parse_fault("fail@request:2"), parse_fault("hang@request:3")))
    due = [faults.count_request() for _ in range(5)]
    assert [set(), {"fail"}, {"hang"}, {"hang"}, {"hang"}] == due


def test_requests_are_counted_from_the_moment_a_fault_is_set() -> None:
    faults = Faults()
    faults.count_request()
    faults.add(parse_fault("fail@request:1"))
    assert {"fail"} == faults.count_request()


def test_cleared_faults_are_never_due() -> None:
    faults = Faults((parse_fault("fail@request:1"), parse_fault("cut-stream@token:2")))
    faults.clear()
    assert (frozenset(), [], 0) == (faults.count_request(), faults.active(), faults.number("cut-stream", 0))


def test_a_failure_may_come_at_a_token_or_at_a_request() -> None:
    faults = Faults(
        (parse_fault("fail@request:2"), parse_fault("fail@token:3"), parse_fault("incomplete@request:1"))
    )
    assert (3, 2, 0) == (
        faults.number_at("fail", "token"),
        faults.number_at("fail", "request"),
        faults.number_at("cut-stream", "token"),
    )
    assert frozenset({"incomplete"}) == faults.count_request()
    assert frozenset({"fail"}) == faults.count_request()
