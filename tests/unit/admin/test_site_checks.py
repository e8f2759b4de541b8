"""What a site tells about itself, held against the options of one job."""

import dataclasses
from typing import Any

import pytest

from llmop.admin import site_checks
from llmop.domain.checks import Check, Result
from llmop.domain.survey import Association, Gpu, NodeGroup, Partition, Qos, Survey

GPU = Partition(name="gpu", is_default=True, max_time_s=7200, default_time_s=3600)
NODES = NodeGroup(partition="gpu", nodes=3, cpus=32, memory_mib=256_000, gpus=(Gpu(type="a100", count=4),))
NLP = Association(account="nlp", qos=("long", "normal"), default_qos="normal")
SITE = Survey(
    version="22.05.8",
    partitions=(GPU,),
    node_groups=(NODES,),
    associations=(NLP,),
    default_account="nlp",
    qos=(Qos(name="normal"), Qos(name="long", max_wall_s=1800)),
    user="ann",
)
FITS = {"partition": "gpu", "account": "nlp", "gres": "gpu:a100:2", "cpus-per-task": "16", "mem": "64000M"}


def look(options: dict[str, str], limit_s: int = 3600, **changes: Any) -> dict[str, Check]:
    survey = dataclasses.replace(SITE, **changes)
    return {each.name: each for each in site_checks.check("md", options, limit_s, survey)}


def results(found: dict[str, Check]) -> dict[str, Result]:
    return {name: each.result for name, each in found.items()}


def test_what_fits_passes_everywhere() -> None:
    found = look(FITS)
    assert set(results(found).values()) == {Result.OK}
    assert found["Nodes"].message == "3 nodes have 2 x gpu:a100, 16 CPUs, 64000 MiB"
    assert found["TimeLimit"].message == "60 min"


@pytest.mark.parametrize(
    ("options", "name", "words"),
    [
        ({"partition": "nowhere"}, "Partition", "nowhere: not among those"),
        ({"account": "cv"}, "Account", "no such association"),
        ({"qos": "golden"}, "QOS", "golden: not one of yours"),
        ({"gres": "gpu:h100:1"}, "Nodes", "no node of partition gpu has 1 x gpu:h100"),
        ({"gres": "gpu:a100:5"}, "Nodes", "no node of partition gpu has 5 x gpu:a100"),
        ({"gres": "gpu:8"}, "Nodes", "no node of partition gpu has 8 x gpu"),
        ({"cpus-per-task": "64"}, "Nodes", "64 CPUs"),
        ({"mem": "900000M"}, "Nodes", "900000 MiB"),
    ],
)
def test_what_does_not_fit_fails_with_what_to_do(options: dict[str, str], name: str, words: str) -> None:
    found = look({**FITS, **options})[name]
    assert found.result is Result.FAIL
    assert words in found.message
    assert found.fix


@pytest.mark.parametrize(
    ("partition", "name", "result"),
    [
        ({"state": "DRAIN"}, "Partition gpu", Result.WARN),
        ({"root_only": True}, "Partition gpu", Result.FAIL),
        ({"allow_accounts": ("physics",)}, "Account", Result.FAIL),
        ({"deny_accounts": ("nlp",)}, "Account", Result.FAIL),
        ({"allow_qos": ("long",)}, "QOS", Result.FAIL),
        ({"deny_qos": ("normal",)}, "QOS", Result.FAIL),
        ({"needs_reservation": True}, "Partition gpu", Result.WARN),
        ({"allow_groups": ("staff",)}, "Partition gpu", Result.WARN),
        ({"max_time_s": 600}, "TimeLimit", Result.FAIL),
    ],
)
def test_the_rules_of_a_partition_count(partition: dict[str, Any], name: str, result: Result) -> None:
    changed = dataclasses.replace(GPU, **partition)
    assert result in {
        each.result
        for each in site_checks.check("md", FITS, 3600, dataclasses.replace(SITE, partitions=(changed,)))
        if each.name == name
    }


def test_the_limit_of_a_qos_counts() -> None:
    assert look({**FITS, "qos": "long"})["TimeLimit"].message == "60 min: MaxWall of QOS long is 30 min"


def test_without_a_time_limit_the_partition_decides() -> None:
    assert look(FITS, 0)["TimeLimit"].message == "60 min (the partition's default)"
    endless = dataclasses.replace(GPU, max_time_s=None, default_time_s=None)
    assert look(FITS, 0, partitions=(endless,))["TimeLimit"].result is Result.WARN


def test_what_the_site_hides_is_a_warning_and_never_a_pass() -> None:
    found = look(FITS, associations=None, node_groups=())
    assert (found["Account"].result, found["Nodes"].result) == (Result.WARN, Result.WARN)


def test_without_a_partition_the_default_counts_and_without_one_it_fails() -> None:
    assert look({})["Partition gpu"].result is Result.OK
    lonely = dataclasses.replace(GPU, is_default=False)
    assert look({}, partitions=(lonely,))["Partition"].result is Result.FAIL


def test_amounts_in_other_forms_are_left_to_slurm() -> None:
    found = look({**FITS, "mem": "64G", "cpus-per-task": "4-8", "gres": "gpu:a100"})
    assert found["Nodes"].message == "3 nodes have 1 x gpu:a100"


def test_of_several_partitions_each_is_looked_at() -> None:
    short = dataclasses.replace(GPU, name="short", is_default=False)
    found = look({**FITS, "partition": "gpu,short,gone"}, partitions=(GPU, short))
    assert {"Partition gpu", "Partition short", "Partition"} <= set(found)
    assert "gone" in found["Partition"].message
