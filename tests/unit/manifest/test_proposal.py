"""What `llmctl discover` prints: apply takes it unchanged, whatever the site is called and whatever it printed."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmop.cluster.slurm import parse, survey
from llmop.domain.survey import Gpu, NodeGroup, Partition, Survey
from llmop.manifest import admit, convert, load, proposal
from llmop.planner import discovery

TESTS = Path(__file__).parents[2]


def recorded(release: str = "22.05") -> Survey:
    """The site of the recording (tests/rigs/site.py)."""
    text = {
        name: each["stdout"]
        for name, each in json.loads((TESTS / "data" / "slurm" / release / "site.json").read_text()).items()
    }
    settings = parse.config(text["config"])
    return Survey(
        cluster_name=settings["ClusterName"],
        version=settings["SLURM_VERSION"],
        settings=settings,
        partitions=survey.partitions(text["partition"])[0],
        node_groups=survey.node_groups(text["sinfo"])[0],
        associations=survey.associations(text["assoc"])[0],
        default_account=survey.default_account(text["user"], "user"),
        qos=survey.qos(text["qos"])[0],
        home="/home/user",
        user="user",
    )


def test_the_recorded_site_reads_like_this() -> None:
    written = proposal.files(discovery.propose(recorded(), "default", "/project/nlp/llmop"))
    text = "---\n".join(written.values())
    golden = TESTS / "golden" / "discover.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("release", ["24.11", "26.05"])
def test_the_same_site_reads_the_same_on_newer_releases(release: str) -> None:
    site = recorded(release)
    assert site.version.startswith(release)
    as_before = dataclasses.replace(site, version=recorded().version)
    written, before = (
        proposal.files(discovery.propose(each, "default", "/project/nlp/llmop"))
        for each in (as_before, recorded())
    )
    assert before == written


def test_every_document_is_admitted_and_means_the_profile() -> None:
    proposed = discovery.propose(recorded(), "default", "/project/nlp/llmop")
    for text in proposal.files(proposed).values():
        (document,) = load.load(text, "discovered")
        resource = admit.admit(document.data, namespace="default")
        if resource.kind == "ResourceProfile":
            (meant,) = [each.profile for each in proposed.profiles if each.profile.name == resource.name]
            assert convert.profile(resource) == meant
        else:
            where = convert.site(resource)
            assert (where.shared_dir, where.settle_s) == ("/project/nlp/llmop", 60)


ANYTHING = st.text(max_size=30)
COUNTS = st.integers(min_value=0, max_value=10**9)


@given(
    st.lists(
        st.builds(
            Partition,
            name=ANYTHING | st.sampled_from(["gpu", "GPU", "on", "1e3", "0x1F", "12:30:00", "null"]),
            state=st.sampled_from(["UP", "DOWN"]),
            max_time_s=st.none() | COUNTS,
            qos=ANYTHING,
            preempt_mode=ANYTHING,
            allow_groups=st.none() | st.tuples(ANYTHING),
        ),
        max_size=4,
        unique_by=lambda each: each.name,
    ),
    st.lists(ANYTHING | st.sampled_from(["a100", "100", "1g.5gb", "no", ""]), max_size=4),
    COUNTS,
    COUNTS,
    st.lists(ANYTHING, max_size=3),
)
def test_whatever_a_site_prints_the_text_is_valid_and_applies(
    partitions: list[Partition], kinds: list[str], cpus: int, memory: int, unknown: list[str]
) -> None:
    groups = tuple(
        NodeGroup(
            partition=each.name,
            nodes=1,
            cpus=cpus,
            memory_mib=memory,
            gpus=tuple(Gpu(type=kind, count=1 + cpus % 5000) for kind in dict.fromkeys(kinds)),
        )
        for each in partitions
    )
    seen = dataclasses.replace(
        recorded(),
        partitions=tuple(partitions),
        node_groups=groups,
        associations=None,
        unknown=tuple(unknown),
    )
    names = set()
    for name, text in proposal.files(discovery.propose(seen, "default", "/shared")).items():
        (document,) = load.load(text, name)
        resource = admit.admit(document.data, namespace="default")
        assert yaml.safe_load(text) == document.data  # readers of YAML 1.1 understand the same
        names.add((resource.kind, resource.name))
    usable = [each for each in partitions if each.state == "UP"]
    assert len(names) <= 1 + len(usable) * max(1, len(set(kinds)))
