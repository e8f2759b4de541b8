"""Whole installations in virtual time, under everything that goes wrong: `hack/simulate` plays more of the same."""

import pytest

from llmop.testing import simulation

BREADTH = range(40)
DEPTH = range(2)


def _play(seeds: range, setting: simulation.Setting) -> simulation.Result:
    total = simulation.Result()
    for seed in seeds:
        total.add(simulation.simulate(seed, setting))
    for seed, words, film in total.violations:
        print(film)
        print(f"seed {seed}: {words}")
    return total


def test_nothing_is_violated_in_a_world_where_everything_goes_wrong() -> None:
    setting = simulation.Setting(hours=0.5, fault_every_s=25, user_every_s=60)
    total = _play(BREADTH, setting)
    assert [] == [(seed, words) for seed, words, _ in total.violations]
    # A simulation whose passes decide nothing proves nothing.
    assert set(total.actions) >= {
        "AdoptJob",
        "CancelJobs",
        "CreateReplica",
        "FinishDeletion",
        "OrderDrain",
        "RecordEnd",
        "RemoveReplica",
        "RemoveRevision",
        "StartDrain",
        "SubmitJob",
    }
    assert set(total.steps) >= {"Idle", "LoadFell", "LoadRose", "Woken"}
    assert set(total.letters) == {"in time", "of unknown age", "orders"}
    print(f"passes={total.passes} looks={total.looks} faults={total.faults}")


def test_hours_on_a_real_database_violate_nothing() -> None:
    setting = simulation.Setting(hours=2.0, fault_every_s=120, user_every_s=450, store="sqlite")
    total = _play(DEPTH, setting)
    assert [] == [(seed, words) for seed, words, _ in total.violations]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_seed_plays_the_same_again(seed: int) -> None:
    setting = simulation.Setting(hours=0.3, fault_every_s=25, user_every_s=60)
    assert simulation.simulate(seed, setting) == simulation.simulate(seed, setting)


def test_a_seed_plays_the_same_on_a_real_database() -> None:
    """So what is seen on the store double, which is quicker, is seen of the real one."""
    plays = [
        simulation.simulate(3, simulation.Setting(hours=0.5, fault_every_s=25, user_every_s=60, store=store))
        for store in ("memory", "sqlite")
    ]
    assert plays[0] == plays[1]
    assert plays[0].passes > 10
