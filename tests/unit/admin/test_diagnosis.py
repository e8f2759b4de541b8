"""Facts about an installation become checks, each bad one with what to do."""

import dataclasses
from typing import Any

import pytest

from llmop.admin import diagnosis
from llmop.domain.checks import Check, Result

CLUSTER = diagnosis.Cluster(
    name="hpc",
    snapshot_age_s=4.0,
    clock_ahead_s=0.4,
    conditions={"Fenced": ("True", "")},
)
HEALTHY = diagnosis.Facts(
    now=1_800_000_000.0,
    store="",
    epoch="",
    clusters=(CLUSTER,),
    agents={"chat-1": 2.0},
    gateways={"gw": (0.5, 7)},
    table_version=7,
    disks=(diagnosis.Disk(subject="state directory", path="/state", least_mib=512, free_mib=2_000_000),),
    certificates={"ca.pem": 1_900_000_000.0},
)


def look(**changes: Any) -> dict[tuple[str, str], Check]:
    found = diagnosis.checks(dataclasses.replace(HEALTHY, **changes))
    return {(each.subject, each.name): each for each in found}


def of_cluster(**changes: Any) -> dict[str, Check]:
    found = look(clusters=(dataclasses.replace(CLUSTER, **changes),))
    return {name: each for (subject, name), each in found.items() if subject == "cluster hpc"}


def test_a_healthy_installation_passes_everywhere() -> None:
    assert {each.result for each in look().values()} == {Result.OK}


@pytest.mark.parametrize(
    ("changes", "key", "result"),
    [
        ({"store": "database is locked"}, ("store", "Answers"), Result.FAIL),
        ({"epoch": "epoch 3 is over"}, ("controller", "Epoch"), Result.FAIL),
        ({"clusters": ()}, ("controller", "Clusters"), Result.WARN),
        ({"agents": {"chat-1": 31.0}}, ("agents", "Reports"), Result.WARN),
        ({"writing": frozenset({"chat-1"})}, ("agents", "Channel"), Result.WARN),
        ({"gateways": {}}, ("gateways", "Alive"), Result.WARN),
        ({"gateways": {"gw": (11.0, 7)}}, ("gateway gw", "Alive"), Result.WARN),
        ({"gateways": {"gw": (0.5, 6)}}, ("gateway gw", "Table"), Result.WARN),
        ({"gateways": {"gw": (0.5, 8)}}, ("gateway gw", "Table"), Result.WARN),
        ({"certificates": {"ca.pem": 1_800_000_000.0}}, ("certificate ca.pem", "Valid"), Result.FAIL),
        ({"certificates": {"ca.pem": 1_800_086_400.0}}, ("certificate ca.pem", "Valid"), Result.WARN),
        ({"certificates": {"ca.pem": "is no certificate"}}, ("certificate ca.pem", "Valid"), Result.FAIL),
        (
            {"disks": (diagnosis.Disk(subject="d", path="/p", least_mib=512, free_mib=511),)},
            ("d", "Space"),
            Result.WARN,
        ),
        (
            {"disks": (diagnosis.Disk(subject="d", path="/p", least_mib=512, problem="stale handle"),)},
            ("d", "Space"),
            Result.FAIL,
        ),
    ],
)
def test_each_fact_has_its_check(changes: dict[str, Any], key: tuple[str, str], result: Result) -> None:
    found = look(**changes)[key]
    assert (found.result, bool(found.fix)) == (result, True)


def test_before_a_controllers_first_table_gateways_have_that_of_the_one_before() -> None:
    assert Result.OK == look(table_version=0)["gateway gw", "Table"].result


@pytest.mark.parametrize(
    ("changes", "name", "result"),
    [
        ({"problem": "Unable to contact slurm controller"}, "Reachable", Result.FAIL),
        ({"snapshot_age_s": None}, "Reachable", Result.WARN),
        ({"snapshot_age_s": 181.0}, "Reachable", Result.WARN),
        ({"brake": "5 of 9 running jobs vanished"}, "Brake", Result.FAIL),
        ({"directory_problem": "/shared: Permission denied"}, "SharedDirectory", Result.FAIL),
        ({"directory_problem": None}, "SharedDirectory", Result.WARN),
        ({"conditions": {}}, "Fences", Result.WARN),
        ({"conditions": {"Fenced": ("True", "with substitutes")}}, "Fences", Result.WARN),
        ({"conditions": {"Fenced": ("False", "names are changed")}}, "Fences", Result.FAIL),
        ({"orphans": ("llmop-a (1)", "llmop-b (2)", "llmop-c (3)", "llmop-d (4)")}, "Orphans", Result.WARN),
        ({"clock_ahead_s": 4.9}, "Clock", Result.OK),
        ({"clock_ahead_s": -5.0}, "Clock", Result.WARN),
        ({"clock_ahead_s": 60.0}, "Clock", Result.FAIL),
    ],
)
def test_each_fact_about_a_cluster_has_its_check(changes: dict[str, Any], name: str, result: Result) -> None:
    found = of_cluster(**changes)[name]
    assert (found.result, bool(found.fix)) == (result, result is not Result.OK)


def test_directions_of_clocks_are_told() -> None:
    assert of_cluster(clock_ahead_s=-7.0)["Clock"].message == "Slurm's clock is 7 s behind the controller's"
    assert of_cluster(clock_ahead_s=7.0)["Clock"].message == "Slurm's clock is 7 s ahead of the controller's"


def test_a_cluster_that_does_not_tell_its_time_has_no_check_of_it() -> None:
    assert "Clock" not in of_cluster(clock_ahead_s=None)


def test_of_many_orphans_the_first_are_named() -> None:
    orphans = tuple(f"llmop-{letter}" for letter in "abcde")
    assert of_cluster(orphans=orphans)["Orphans"].message.endswith("llmop-a, llmop-b, llmop-c and 2 more")
