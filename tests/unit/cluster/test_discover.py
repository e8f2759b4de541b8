"""Discovery where commands fail, hang, chatter or are missing; the commands are stand-ins on PATH that print what a real Slurm did."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from llmop.cluster.slurm import discover, process
from llmop.domain.survey import Survey

RECORDED = json.loads(
    (Path(__file__).parents[2] / "data" / "slurm" / "22.05" / "site.json").read_text(encoding="utf-8")
)
EMPTY = json.loads(
    (Path(__file__).parents[2] / "data" / "slurm" / "22.05" / "site-without-associations.json").read_text(
        encoding="utf-8"
    )
)
OTHER = json.loads(
    (Path(__file__).parents[2] / "data" / "slurm" / "22.05" / "other-outcomes.json").read_text(
        encoding="utf-8"
    )
)
HANGS = "exec sleep 600"


def says(recorded: dict[str, object]) -> str:
    """Shell that behaves like the recorded command."""
    lines = [f"printf %s {shlex.quote(str(recorded['stdout']))}"]
    lines.append(f"printf %s {shlex.quote(str(recorded['stderr']))} >&2")
    return "\n".join([*lines, f"exit {recorded['rc']}"])


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., process.Account]:
    """An account whose commands say what was recorded, except for those given as shell by their last word."""

    def make(**changes: str) -> process.Account:
        bodies = {name: says(recorded) for name, recorded in RECORDED.items()} | changes
        for command, cases in {
            "scontrol": {"config": "*config*", "partition": "*partition*"},
            "sinfo": {"sinfo": "*"},
            "sacctmgr": {"assoc": "*' assoc '*", "user": "*' show user '*", "qos": "*"},
        }.items():
            lines = ["#!/bin/bash", 'case " $* " in']
            lines += [f"{pattern})\n{bodies[case]}\n;;" for case, pattern in cases.items()]
            (tmp_path / command).write_text("\n".join([*lines, "esac", ""]))
            (tmp_path / command).chmod(0o755)
        return process.Account(
            uid=1001, variables={"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": "/home/user", "USER": "user"}
        )

    return make


async def look(account: process.Account, timeout_s: float = 20.0) -> Survey:
    return await discover.discover(account, timeout_s)


async def test_a_site_that_answers_is_known_whole(site: Callable[..., process.Account]) -> None:
    found = await look(site())
    assert found.unknown == ()
    assert (found.version, found.cluster_name, found.user, found.home) == (
        "22.05.8",
        "rig",
        "user",
        "/home/user",
    )
    assert {each.name for each in found.partitions} >= {"gpu", "Mixed_long", "cpu"}
    assert {each.partition for each in found.node_groups} >= {"gpu", "Mixed_long", "cpu"}
    assert [each.account for each in found.associations or ()] == ["nlp", "cv"]
    assert found.default_account == "nlp"
    assert {each.name for each in found.qos} == {"normal", "long"}


async def test_no_accounting_is_normal_and_said_once(site: Callable[..., process.Account]) -> None:
    disabled = says(OTHER["sacctmgr"])
    found = await look(site(assoc=disabled, user=disabled, qos=disabled))
    assert found.associations is None
    assert found.unknown == ("this Slurm keeps no accounts: account and qos are not needed, and not checked",)


async def test_an_account_without_associations_is_not_a_site_without_accounts(
    site: Callable[..., process.Account],
) -> None:
    found = await look(site(assoc=says(EMPTY["assoc"]), user=says(EMPTY["user"])))
    assert (found.associations, found.default_account, found.unknown) == ((), "", ())


@pytest.mark.parametrize("case", ["partition", "sinfo", "assoc", "qos"])
async def test_a_command_that_hangs_costs_what_it_would_have_said(
    site: Callable[..., process.Account], case: str
) -> None:
    found = await look(site(**{case: HANGS}), timeout_s=1.0)
    (problem,) = found.unknown
    assert problem.endswith("did not end within 1 s and was killed")
    assert found.version == "22.05.8"


@pytest.mark.parametrize("case", ["partition", "sinfo", "assoc", "qos"])
async def test_a_command_that_fails_is_said_in_its_own_words(
    site: Callable[..., process.Account], case: str
) -> None:
    failing = "echo 'slurm_load: error: Access/permission denied' >&2; exit 1"
    found = await look(site(**{case: failing}))
    (problem,) = found.unknown
    assert "Access/permission denied" in problem


async def test_noise_of_the_site_is_said(site: Callable[..., process.Account]) -> None:
    banner = "echo 'Welcome! See https://hpc.example.org'; "
    found = await look(site(partition=banner + says(RECORDED["partition"])))
    (problem,) = found.unknown
    assert problem.startswith(
        "scontrol show partition printed a line that is no record: something at this site"
    )


async def test_private_data_is_said(site: Callable[..., process.Account]) -> None:
    private = dict(RECORDED["config"])
    private["stdout"] = str(private["stdout"]).replace(
        "PrivateData             = none", "PrivateData             = accounts,jobs"
    )
    found = await look(site(config=says(private)))
    assert found.unknown == ("PrivateData=accounts,jobs: this site hides some of what others see",)


async def test_without_a_slurm_there_is_no_version_and_every_failure_is_named(tmp_path: Path) -> None:
    nothing = process.Account(uid=1001, variables={"PATH": str(tmp_path), "HOME": "/", "USER": "user"})
    found = await look(nothing)
    assert found.version == ""
    assert any(
        problem.startswith("scontrol show config: scontrol cannot be started") for problem in found.unknown
    )
