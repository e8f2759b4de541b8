"""The table of `llmctl top` out of a gateway's counters."""

from llmop.cli import load

BEFORE = """\
# HELP llmop_gateway_in_flight Requests at the replicas now.
# TYPE llmop_gateway_in_flight gauge
llmop_gateway_in_flight{model="unknown"} 0.0
llmop_gateway_in_flight{model="meta/llama \\"8b\\""} 2.0
llmop_gateway_requests_total{code="2xx",dialect="openai",model="meta/llama \\"8b\\""} 100.0
llmop_gateway_requests_total{code="5xx",dialect="openai",model="meta/llama \\"8b\\""} 5.0
llmop_gateway_requests_total{code="2xx",dialect="tgi",model="meta/llama \\"8b\\""} 10.0
llmop_gateway_time_to_first_byte_seconds_count{model="meta/llama \\"8b\\""} 110.0
llmop_gateway_time_to_first_byte_seconds_sum{model="meta/llama \\"8b\\""} 11.0
"""


def after(**values: str) -> str:
    text = BEFORE
    for old, new in values.items():
        text = text.replace(f" {old.removeprefix('v').replace('_', '.')}\n", f" {new}\n")
    return text


def test_rates_are_what_came_in_between() -> None:
    later = after(v100_0="120.0", v5_0="9.0", v110_0="120.0", v11_0="13.0", v2_0="7.0")
    assert [['meta/llama "8b"', "7", "12.0", "2.0", "200ms", "139", "9"]] == load.table(
        load.read(BEFORE), load.read(later), 2.0
    )


def test_without_a_request_nothing_is_said_of_its_time() -> None:
    same = load.read(BEFORE)
    assert [['meta/llama "8b"', "2", "0.0", "0.0", "<none>", "115", "5"]] == load.table(same, same, 1.0)


def test_a_gateway_that_was_started_anew_counts_from_zero() -> None:
    fresh = after(v100_0="3.0", v5_0="0.0", v10_0="0.0", v110_0="3.0", v11_0="0.3")
    assert [['meta/llama "8b"', "2", "3.0", "0.0", "<none>", "3", "0"]] == load.table(
        load.read(BEFORE), load.read(fresh), 1.0
    )


def test_replicas_have_a_row_each() -> None:
    text = (
        'llmop_gateway_replica_in_flight{deployment="lab/d",replica="d-b"} 2.0\n'
        'llmop_gateway_replica_in_flight{deployment="lab/d",replica="d-a"} 0.0\n'
    )
    assert [["lab/d", "d-a", "0"], ["lab/d", "d-b", "2"]] == load.replicas(load.read(text))
    assert [] == load.replicas(load.read(BEFORE))


def test_what_is_no_sample_is_left_out() -> None:
    assert {} == load.read("# nothing\n\ngarbage\nx{a=1} y\n")
