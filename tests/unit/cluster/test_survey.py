"""Reading what a site tells about itself: recorded from a real Slurm, and spoiled by what sites do to outputs."""

import json
from pathlib import Path

import pytest

from llmop.cluster.slurm import survey
from llmop.domain.survey import Association, Gpu, NodeGroup, Qos

RECORDED = json.loads(
    (Path(__file__).parents[2] / "data" / "slurm" / "22.05" / "site.json").read_text(encoding="utf-8")
)
MOTD = "Welcome to the cluster!\n  maintenance on Monday = read the news\n\n"


def printed(name: str) -> str:
    return str(RECORDED[name]["stdout"])


def test_partitions_keep_who_may_use_them_and_for_how_long() -> None:
    found, problem = survey.partitions(printed("partition"))
    by_name = {each.name: each for each in found}
    assert not problem
    assert set(by_name) == {"gpu", "Mixed_long", "cpu", "closed", "admins", "others"}  # not "hidden"
    assert by_name["gpu"].allow_accounts == ("nlp", "cv")
    assert (by_name["gpu"].max_time_s, by_name["gpu"].default_time_s) == (172_800, 3600)
    assert (by_name["Mixed_long"].max_time_s, by_name["Mixed_long"].default_time_s) == (None, None)
    assert by_name["Mixed_long"].allow_qos == ("long",)
    assert (by_name["Mixed_long"].preempt_mode, by_name["Mixed_long"].grace_s) == ("CANCEL", 120)
    assert by_name["closed"].state == "DOWN"
    assert by_name["admins"].root_only
    assert [each.name for each in found if each.is_default] == ["gpu"]


def test_a_banner_around_partitions_is_said_and_harms_no_partition() -> None:
    found, problem = survey.partitions(MOTD + printed("partition"))
    assert [each.name for each in found] == [each.name for each in survey.partitions(printed("partition"))[0]]
    assert problem.startswith("scontrol show partition printed 2 lines that are no records")


def test_node_groups_are_those_of_sinfo() -> None:
    found, problem = survey.node_groups(printed("sinfo"))
    assert not problem
    assert [each for each in found if each.partition == "gpu"] == [
        NodeGroup(
            partition="gpu",
            nodes=1,
            cpus=32,
            memory_mib=256_000,
            gpus=(Gpu(type="a100", count=4),),
            features=("a100", "fake"),
        ),
        NodeGroup(
            partition="gpu",
            nodes=1,
            cpus=64,
            memory_mib=515_000,
            gpus=(Gpu(type="h100", count=2),),
            features=("h100", "ib"),
        ),
    ]
    assert [each.gpus for each in found if each.partition == "cpu"] == [()]


def test_a_banner_before_sinfo_does_not_spoil_its_first_record() -> None:
    assert survey.node_groups(MOTD + printed("sinfo"))[0] == survey.node_groups(printed("sinfo"))[0]


def test_records_of_sinfo_that_are_cut_are_left_out_and_said() -> None:
    whole = survey.node_groups(printed("sinfo"))[0]
    found, problem = survey.node_groups(printed("sinfo")[:-12])
    assert found == whole[:-1]
    assert problem.startswith("sinfo printed a line that is no record")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpu:a100:4", {"a100": 4}),
        ("gpu:a100:4(S:0-1)", {"a100": 4}),
        ("gpu:a100:2(S:0,1),gpu:h100:2(S:1)", {"a100": 2, "h100": 2}),
        ("gpu:8,mps:800,shard:32", {"": 8}),
        ("gpu:tesla:no_consume:2", {"tesla": 2}),
        ("gpu:1g.5gb:7", {"1g.5gb": 7}),
        ("gpu:a100:2(IDX:0-1),gpu:a100:2(IDX:2-3)", {"a100": 4}),
        ("gpu:a100", {"a100": 1}),
        ("gpu:a100:0", {}),
        ("gpu:", {"": 1}),
        ("gpu:a:b:c:4", {}),
        ("(null)", {}),
        ("lustre:1,nvme:2", {}),
        ("gpu:4(", {"": 4}),
    ],
)
def test_gres_becomes_gpus_by_type(text: str, expected: dict[str, int]) -> None:
    assert {gpu.type: gpu.count for gpu in survey.gpus(text)} == expected


def test_associations_and_their_limits() -> None:
    found, problem = survey.associations(printed("assoc"))
    assert not problem
    assert found == (
        Association(account="nlp", qos=("long", "normal"), default_qos="normal"),
        Association(
            account="cv",
            partition="gpu",
            qos=("normal",),
            max_jobs=3,
            max_submit=5,
            max_wall_s=86_400,
            group_tres="gres/gpu=4",
        ),
    )


def test_qos_and_their_limits() -> None:
    assert survey.qos(printed("qos")) == (
        (
            Qos(name="normal"),
            Qos(
                name="long",
                max_wall_s=604_800,
                max_jobs_per_user=4,
                max_submit_per_user=8,
                max_tres_per_user="gres/gpu=8",
            ),
        ),
        "",
    )


def test_the_default_account_is_that_of_the_user() -> None:
    assert survey.default_account(printed("user"), "user") == "nlp"
    assert survey.default_account(printed("user"), "use") == ""
    assert survey.default_account("", "user") == ""


@pytest.mark.parametrize("reader", [survey.associations, survey.qos, survey.partitions, survey.node_groups])
@pytest.mark.parametrize(
    "text",
    [
        "\x00\x01\x02|||||||\n",
        "<html><body>502 Bad Gateway</body></html>",
        "|" * 10_000,
        "\n" * 10_000,
        "PartitionName=",
        "PartitionName=$(reboot) State=UP",
        "$(reboot)|||||||\n`id`||||\n",
        "\x1e\x1f" * 100,
    ],
)
def test_garbage_yields_nothing(reader: object, text: str) -> None:
    assert callable(reader)
    assert reader(text)[0] == ()
