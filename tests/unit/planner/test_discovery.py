"""From a survey to profiles: what is chosen, and what is said where nothing could be chosen."""

import dataclasses

import pytest

from llmop.domain.survey import Association, Gpu, NodeGroup, Partition, ProposedProfile, Qos, Survey
from llmop.planner import discovery

A100 = NodeGroup(partition="gpu", nodes=8, cpus=128, memory_mib=1_031_000, gpus=(Gpu(type="a100", count=4),))
GPU = Partition(name="gpu", is_default=True, max_time_s=172_800)
SITE = Survey(
    cluster_name="rig",
    version="22.05.8",
    partitions=(GPU,),
    node_groups=(A100,),
    home="/home/ann",
    user="ann",
)


def changed(**changes: object) -> Survey:
    return dataclasses.replace(SITE, **changes)  # type: ignore[arg-type]


def profiles(survey: Survey) -> dict[str, ProposedProfile]:
    return {each.profile.name: each for each in discovery.propose(survey, "default").profiles}


def only(survey: Survey) -> ProposedProfile:
    (found,) = profiles(survey).values()
    return found


def with_partition(**changes: object) -> Survey:
    return changed(partitions=(dataclasses.replace(GPU, **changes),))  # type: ignore[arg-type]


def test_a_partition_with_one_kind_of_gpu_is_one_profile() -> None:
    found = only(SITE).profile
    assert (found.name, found.partition, found.gres) == ("gpu-a100", "gpu", "gpu:a100")
    assert (found.gpus_per_node, found.cpus_per_gpu, found.memory_mib_per_gpu) == (4, 32, 248 * 1024)
    assert found.time_limit_s == 172_800


def test_shares_fit_on_the_smallest_node_and_the_largest_number_of_gpus_is_kept() -> None:
    small = NodeGroup(partition="gpu", nodes=2, cpus=16, memory_mib=64_000, gpus=(Gpu(type="a100", count=2),))
    found = only(changed(node_groups=(A100, small)))
    assert (found.profile.gpus_per_node, found.profile.cpus_per_gpu) == (4, 8)
    assert found.profile.memory_mib_per_gpu == 28 * 1024
    assert found.comments["gpusPerNode"] == "the largest node; others have fewer"


def test_nodes_with_two_kinds_of_gpu_share_their_cpus_between_all() -> None:
    both = NodeGroup(
        partition="gpu",
        nodes=1,
        cpus=32,
        memory_mib=256_000,
        gpus=(Gpu(type="a100", count=2), Gpu(type="h100", count=2)),
    )
    found = profiles(changed(node_groups=(both,)))
    assert {name: each.profile.cpus_per_gpu for name, each in found.items()} == {"gpu-a100": 8, "gpu-h100": 8}


def test_the_partitions_own_bounds_per_node_count() -> None:
    found = only(with_partition(max_cpus_per_node=64, max_memory_per_node_mib=512_000))
    assert (found.profile.cpus_per_gpu, found.profile.memory_mib_per_gpu) == (16, 124 * 1024)


def test_names_do_not_depend_on_what_else_there_is() -> None:
    more = Partition(name="other")
    nodes = dataclasses.replace(A100, partition="other")
    assert set(profiles(SITE)) < set(profiles(changed(partitions=(GPU, more), node_groups=(A100, nodes))))


@pytest.mark.parametrize(
    ("partition", "kind", "name"),
    [
        ("gpu", "a100", "gpu-a100"),
        ("GPU_big", "A100-SXM4", "gpu-big-a100-sxm4"),
        ("a100", "a100", "a100"),
        ("gpu", "", "gpu"),
        ("cpu", None, "cpu-nodes"),
        ("batch", None, "batch-cpu"),
        ("dev.q", "1g.5gb", "dev-q-1g-5gb"),
    ],
)
def test_names_are_made_of_partition_and_gpu(partition: str, kind: str | None, name: str) -> None:
    group = NodeGroup(
        partition=partition,
        nodes=1,
        cpus=8,
        memory_mib=64_000,
        gpus=() if kind is None else (Gpu(type=kind, count=1),),
    )
    assert set(profiles(changed(partitions=(Partition(name=partition),), node_groups=(group,)))) == {name}


def test_names_that_would_be_equal_are_told_apart_and_long_ones_cut() -> None:
    names = ("Gpu", "gpu", "p" * 60)
    found = profiles(
        changed(
            partitions=tuple(Partition(name=name) for name in names),
            node_groups=tuple(dataclasses.replace(A100, partition=name) for name in names),
        )
    )
    assert {each.profile.partition for each in found.values()} == set(names)
    assert all(len(name) <= 63 for name in found)


def test_without_gpus_a_profile_says_cpus_and_memory_of_a_replica() -> None:
    group = NodeGroup(partition="gpu", nodes=1, cpus=64, memory_mib=256_000)
    found = only(changed(node_groups=(group,)))
    assert (found.profile.gres, found.profile.cpus_per_gpu, found.profile.gpus_per_node) == ("", 8, 0)
    assert found.profile.memory_mib_per_gpu == 124 * 1024


def test_without_sinfo_the_profile_says_that_it_knows_no_nodes() -> None:
    found = only(changed(node_groups=()))
    assert found.remarks[0] == "partition gpu; sinfo shows no nodes of it"
    assert (found.profile.cpus_per_gpu, found.profile.memory_mib_per_gpu) == (0, 0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": "DOWN"}, "partition gpu: is DOWN"),
        ({"root_only": True}, "partition gpu: is for root only"),
        ({"allow_accounts": ("physics",)}, "partition gpu: allows none of your accounts"),
        ({"deny_accounts": ("nlp",)}, "partition gpu: allows none of your accounts"),
        ({"allow_qos": ("vip",)}, "partition gpu: allows none of your accounts"),
        ({"name": "a b"}, "partition a b: its name cannot stand in a manifest"),
    ],
)
def test_partitions_that_cannot_be_used_are_left_out_and_named(
    changes: dict[str, object], reason: str
) -> None:
    mine = Association(account="nlp", qos=("normal",), default_qos="normal")
    partition = dataclasses.replace(GPU, **changes)  # type: ignore[arg-type]
    proposal = discovery.propose(changed(partitions=(partition,), associations=(mine,)), "default")
    assert proposal.profiles == ()
    assert f"left out: {reason}" in proposal.cluster.remarks


def test_the_default_account_is_taken_where_it_is_allowed_and_others_are_named() -> None:
    both = (
        Association(account="cv", qos=("normal",), default_qos="normal"),
        Association(account="nlp", qos=("long", "normal"), default_qos="normal"),
    )
    found = only(changed(associations=both, default_account="nlp"))
    assert (found.profile.account, found.profile.qos) == ("nlp", "normal")
    assert found.comments["account"] == "your default account; also possible: cv"
    assert found.comments["qos"] == "your default QOS; also possible: long"
    elsewhere = dataclasses.replace(GPU, allow_accounts=("cv",))
    found = only(changed(associations=both, default_account="nlp", partitions=(elsewhere,)))
    assert (found.profile.account, found.comments["account"]) == ("cv", "allowed on this partition")


def test_without_accounts_none_is_written() -> None:
    assert (only(SITE).profile.account, only(SITE).profile.qos) == ("", "")
    found = only(changed(associations=()))
    assert found.profile.account == ""
    assert "ask your site" in found.comments["account"]


def test_the_shortest_limit_of_partition_qos_and_account_is_the_walltime() -> None:
    mine = Association(account="nlp", qos=("normal",), default_qos="normal", max_wall_s=7200)
    found = only(changed(associations=(mine,), qos=(Qos(name="normal", max_wall_s=3600),)))
    assert (found.profile.time_limit_s, found.comments["timeLimit"]) == (3600, "MaxWall of QOS normal")
    found = only(changed(associations=(mine,)))
    assert (found.profile.time_limit_s, found.comments["timeLimit"]) == (7200, "MaxWall of account nlp")


def test_no_limit_means_a_day_and_says_so() -> None:
    found = only(with_partition(max_time_s=None))
    assert (found.profile.time_limit_s, found.comments["timeLimit"]) == (
        86_400,
        "no limit was found; a day is our choice",
    )


def test_what_was_not_found_out_is_said() -> None:
    proposal = discovery.propose(
        changed(unknown=("sacctmgr show assoc: timed out",), partitions=()), "default"
    )
    assert "not found out: sacctmgr show assoc: timed out" in proposal.cluster.remarks
    assert "no partition was found: write the ResourceProfiles by hand" in proposal.cluster.remarks


def test_settings_of_the_site_become_those_of_the_cluster() -> None:
    settings = {
        "MessageTimeout": "60 sec",
        "MinJobAge": "2 sec",
        "SlurmctldParameters": "idle_on_node_suspend,rl_enable",
        "JobSubmitPlugins": "lua",
    }
    cluster = discovery.propose(changed(settings=settings), "hpc", "/project/llmop").cluster
    assert (cluster.name, cluster.shared_dir, cluster.settle_s, cluster.poll_min_s) == (
        "hpc",
        "/project/llmop",
        180,
        15,
    )
    assert any("forgets a job 2 s after its end" in remark for remark in cluster.remarks)
    assert any("changes or checks jobs when they are submitted (lua)" in remark for remark in cluster.remarks)


def test_a_shared_directory_that_nobody_named_is_a_guess_and_says_so() -> None:
    cluster = discovery.propose(SITE, "default").cluster
    assert cluster.shared_dir == "/home/ann/llmop-shared"
    assert cluster.comments["sharedDir"].startswith("CHECK THIS")


@pytest.mark.parametrize(
    ("kind", "vendor"),
    [
        ("mi250x", "amd"),
        ("MI300A", "amd"),
        ("amd_mi210", "amd"),
        ("gfx90", "amd"),
        ("a100", ""),
        ("mig-1g", ""),
    ],
)
def test_gpus_of_amd_are_known_by_their_names(kind: str, vendor: str) -> None:
    group = dataclasses.replace(A100, gpus=(Gpu(type=kind, count=4),))
    assert only(changed(node_groups=(group,))).profile.gpu_vendor == vendor
