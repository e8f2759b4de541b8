"""The report of a node becomes checks; a report that is garbage becomes failures, never an error."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmop.admin import node_checks
from llmop.domain.checks import Check, Result

GOOD: dict[str, Any] = {
    "python": "3.6.8",
    "host": "n1",
    "path": "/usr/bin",
    "shared": {"problem": "", "freeMiB": 10_000},
    "missing": [],
    "container": {"runtime": "/usr/bin/apptainer", "version": "apptainer version 1.4.5"},
    "namespaces": {"problem": ""},
    "fuse": True,
    "image": {"tried": True, "problem": "", "seconds": 0.4},
    "gpus": {"CUDA_VISIBLE_DEVICES": "0,1"},
    "controllers": [{"url": "https://login:7443", "problem": "", "source": "10.0.0.7"}],
    "door": {"host": "10.0.0.7", "port": 12345},
}


def look(wanted: int = 2, sif: str = "/images/e.sif", **changes: Any) -> dict[str, Check]:
    report = {**GOOD, **changes}
    return {each.name: each for each in node_checks.check(report, gpus=wanted, image=sif, subject="node")}


def failing(found: dict[str, Check]) -> set[str]:
    return {name for name, each in found.items() if each.result is Result.FAIL}


def test_a_good_node_passes() -> None:
    found = look()
    assert {each.result for each in found.values()} == {Result.OK}
    assert {each.subject for each in found.values()} == {"node n1"}
    assert node_checks.door(GOOD) == ("10.0.0.7", 12345)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"python": "3.5.9"}, {"Python"}),
        ({"python": "2.7.18"}, {"Python"}),
        ({"python": ""}, {"Python"}),
        ({"shared": {"problem": "/shared: Permission denied", "freeMiB": 0}}, {"SharedDirectory"}),
        ({"missing": ["/models/m"]}, {"Artifacts"}),
        ({"container": {"runtime": "", "version": ""}}, {"Container"}),
        ({"image": {"tried": True, "problem": "FATAL: no space", "seconds": 1.0}}, {"Image"}),
        ({"image": {"tried": False, "problem": "", "seconds": 0}}, {"Image"}),
        ({"gpus": {"CUDA_VISIBLE_DEVICES": "0"}}, {"GPUs"}),
        ({"gpus": {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}}, {"GPUs"}),
        ({"gpus": {}}, {"GPUs"}),
        ({"controllers": []}, {"NodeToController"}),
    ],
)
def test_each_finding_fails_its_own_check_with_what_to_do(changes: dict[str, Any], names: set[str]) -> None:
    found = look(**changes)
    assert failing(found) == names
    assert all(found[name].fix for name in names)


def test_without_an_image_a_node_without_apptainer_is_a_warning() -> None:
    found = look(sif="", container={"runtime": "", "version": ""})
    assert (failing(found), found["Container"].result) == (set(), Result.WARN)


def test_refused_namespaces_matter_only_where_the_image_did_not_start() -> None:
    refused = {"namespaces": {"problem": "Operation not permitted"}, "fuse": False}
    assert not {"Namespaces", "Fuse"} & set(look(**refused))
    found = look(**refused, image={"tried": True, "problem": "failed to create namespace", "seconds": 0.1})
    assert (found["Namespaces"].result, found["Fuse"].result) == (Result.WARN, Result.WARN)


def test_one_controller_that_is_reached_is_enough() -> None:
    away = {"url": "https://old:1", "problem": "refused", "source": ""}
    assert look(controllers=[away, *GOOD["controllers"]])["NodeToController"].result is Result.OK


def test_a_node_that_does_not_reach_the_controller_has_a_substitute() -> None:
    found = look(controllers=[{"url": "https://login:7443", "problem": "timed out", "source": ""}])
    each = found["NodeToController"]
    assert (failing(found), each.result) == (set(), Result.WARN)
    assert "files in sharedDir" in each.message
    assert "https://login:7443: timed out" in each.message
    assert "--agent-advertise" in each.fix


def test_gpus_that_nobody_asked_for_are_a_warning() -> None:
    assert look(wanted=0)["GPUs"].result is Result.WARN


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.floats(allow_nan=True),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(sorted(GOOD)), ANYTHING))
def test_whatever_stands_in_the_report_there_is_an_answer(changes: dict[str, Any]) -> None:
    found = list(node_checks.check({**GOOD, **changes}, gpus=2, image="/i.sif", subject="node"))
    assert found
    assert all(each.fix for each in found if each.result is not Result.OK)
    node_checks.door({**GOOD, **changes})
