"""Rollouts as film strips: one frame per moment, from the first plan to the last.

A letter is a replica: small = starting, capital = available, `-` after it = draining; o/O old revision, n/N new one.
"""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmop.domain import replica
from llmop.planner import assess, rollout
from llmop.testing import builders as make

DRAIN = replica.Drain(reason=replica.DrainReason.REPLACED, requested_at=make.NOW, deadline_at=make.NOW)


def _one(number: int, letter: str, *, drains: bool = False) -> assess.Assessment:
    ready = letter.isupper()
    phase = replica.Phase.DRAINING if drains else replica.Phase.READY if ready else replica.Phase.LOADING
    facts = make.a_replica(
        number,
        revision=2 if letter in "nN" else 1,
        ready_at=make.NOW - 400 if ready else None,
        drain=DRAIN if drains else None,
    )
    return assess.Assessment(facts=facts, phase=phase, is_routed=ready and not drains)


def _read(frame: str) -> list[assess.Assessment]:
    return [
        _one(number, word[0], drains=word.endswith("-")) for number, word in enumerate(frame.split(), start=1)
    ]


def _write(replicas: list[assess.Assessment]) -> str:
    def word(each: assess.Assessment) -> str:
        letter = "n" if each.facts.revision == 2 else "o"
        return (letter.upper() if each.facts.ready_at is not None else letter) + (
            "-" if each.facts.drain else ""
        )

    return " ".join(sorted(map(word, replicas)))


def _film(frame: str, bounds: rollout.Bounds) -> list[str]:
    """After each step everything that drains has ended, and what starts becomes available one frame later."""
    frames, replicas, number = [frame], _read(frame), 100
    for _ in range(30):
        step = rollout.step(replicas, 2, bounds, make.NOW)
        doomed = {each.facts.uid for each in step.drain}
        replicas = [each for each in replicas if each.facts.drain is None]
        replicas = [
            dataclasses.replace(
                each,
                phase=replica.Phase.READY,
                is_routed=True,
                facts=dataclasses.replace(each.facts, ready_at=make.NOW - 400),
            )
            if each.facts.uid not in doomed
            else _one(
                int(each.facts.name.rpartition("r")[2]),
                ("N" if each.facts.revision == 2 else "O")
                if each.facts.ready_at
                else ("n" if each.facts.revision == 2 else "o"),
                drains=True,
            )
            for each in replicas
        ]
        for _ in range(step.create):
            number += 1
            replicas.append(_one(number, "n"))
        shown = _write(replicas)
        if shown == frames[-1] and not step.drain and not step.create:
            break
        frames.append(shown)
    return frames


@pytest.mark.parametrize(
    ("start", "bounds", "film"),
    [
        (
            "O O",
            rollout.Bounds(replicas=2, max_surge=1, max_unavailable=0),
            ["O O", "O O n", "N O O", "N O O-", "N O", "N O n", "N N O", "N N O-", "N N"],
        ),
        (
            "O O",
            rollout.Bounds(replicas=2, max_surge=0, max_unavailable=1),
            ["O O", "O O-", "O", "O n", "N O", "N O-", "N", "N n", "N N"],
        ),
        ("", rollout.Bounds(replicas=2, max_surge=1, max_unavailable=0), ["", "n n", "N N"]),
        ("N N N", rollout.Bounds(replicas=1, max_surge=1, max_unavailable=0), ["N N N", "N N- N-", "N"]),
        ("o o", rollout.Bounds(replicas=2, max_surge=1, max_unavailable=0), None),
    ],
    ids=["surge", "no surge", "from nothing", "scale down", "a rollout over one that never came up"],
)
def test_a_rollout(start: str, bounds: rollout.Bounds, film: list[str] | None) -> None:
    shown = _film(start, bounds)
    if film is not None:
        assert film == shown
    assert " ".join(["N"] * bounds.replicas) == shown[-1]


def test_a_scale_down_in_a_rollout_takes_no_available_replica_that_is_needed() -> None:
    # Two are available, one of each revision, and two are needed: what starts goes, not what serves.
    replicas = _read("O N n n")
    step = rollout.step(replicas, 2, rollout.Bounds(replicas=2, max_surge=0, max_unavailable=0), make.NOW)
    assert [3, 4] == sorted(int(each.facts.name.rpartition("r")[2]) for each in step.drain)


@given(
    st.lists(st.sampled_from(["o", "O", "n", "N", "O-", "N-"]), max_size=8),
    st.integers(0, 5),
    st.integers(0, 2),
    st.integers(0, 2),
)
def test_no_step_makes_too_many_or_leaves_too_few(
    words: list[str], wanted: int, surge: int, unavailable: int
) -> None:
    bounds = rollout.Bounds(replicas=wanted, max_surge=surge, max_unavailable=unavailable)
    replicas = _read(" ".join(words))
    step = rollout.step(replicas, 2, bounds, make.NOW)
    available = [each for each in replicas if rollout.is_available(each, 0, make.NOW)]
    left = [each for each in available if each not in step.drain]
    assert len(left) == len(available) or len(left) >= wanted - unavailable
    assert step.create == 0 or len(replicas) + step.create <= wanted + surge
