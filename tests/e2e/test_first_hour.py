"""A stranger's first hour on somebody's site: accounts, limits, plugins that change jobs, and nothing known in advance."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.e2e.accounts import new_account, terminals
from tests.e2e.installation import Installation, document, simulator
from tests.pages.terminals import Terminals, processes
from tests.rigs import plugins
from tests.rigs.errors import RigError
from tests.rigs.fixtures import engine_sif, llmop_venv
from tests.rigs.ports import free_port
from tests.rigs.site import add_accounts, add_member, site_rig
from tests.rigs.slurm import SlurmRig

__all__ = ["engine_sif", "llmop_venv"]  # fixtures

PAGE = Path(__file__).resolve().parents[2] / "docs/howto/first-hour.md"
Checks = dict[tuple[str, str], dict[str, str]]


@pytest.fixture(scope="module")
def site() -> Iterator[SlurmRig]:
    try:
        rig = site_rig().start()
    except RigError as error:
        pytest.fail(f"no private Slurm with accounts: {error}", pytrace=False)
    add_accounts(rig)
    yield rig
    rig.stop()


@pytest.fixture
def stranger(site: SlurmRig, llmop_venv: Path) -> Iterator[Installation]:
    """A controller and a gateway without a Cluster."""
    installation = Installation(site, llmop_venv, name="stranger", bare=True)
    installation.start()
    yield installation
    installation.stop()


@pytest.fixture
def with_plugin(llmop_venv: Path) -> Iterator[Callable[[str], Installation]]:
    """An installation on a Slurm with this job_submit plugin."""
    rigs: list[SlurmRig] = []
    installations: list[Installation] = []

    def start(text: str) -> Installation:
        rig = SlurmRig(nodes=1, job_submit=text)
        rigs.append(rig.start())
        installation = Installation(rig, llmop_venv, name="plugin")
        installations.append(installation)
        return installation.start()

    yield start
    for installation in installations:
        installation.stop()
    for rig in rigs:
        rig.stop()


def discovered(stranger: Installation) -> list[dict[str, Any]]:
    """What discover proposes, reviewed: this rig polls faster, and its Python is the one of the tests."""
    text = stranger.llmctl("discover", "--shared-dir", str(stranger.shared))
    documents = list(yaml.safe_load_all(text))
    documents[0]["spec"] |= {
        "python": str(stranger.venv / "bin/python"),
        "pollInterval": {"min": "1s", "max": "3s"},
    }
    return documents


def preflight(stranger: Installation, *arguments: str, text: str = "", code: int = 0) -> Checks:
    output = stranger.llmctl("preflight", "-o", "json", *arguments, text=text, code=code)
    found, _ = json.JSONDecoder().raw_decode(output)
    return {(each["subject"].split(" ")[0], each["name"]): each for each in found["checks"]}


def failures(checks: Checks) -> list[tuple[str, str]]:
    return [key for key, each in checks.items() if each["result"] == "FAIL"]


@pytest.fixture
def newcomer(site: SlurmRig, llmop_venv: Path, engine_sif: Path) -> Iterator[Terminals]:
    """A new account at home on this site."""
    port = str(free_port())
    with new_account(site) as account:
        add_member(site, account.name)
        words = {
            "/project/nlp/images/python.sif": str(engine_sif),
            "/project/nlp": str(account.project),
            "/home/me": str(account.home),
            "seen as me": f"seen as {account.name}",
            "8080": port,
        }
        with terminals(site, account, llmop_venv, words) as made:
            yield made


def test_a_newcomer_who_does_what_the_page_says_gets_an_answer(newcomer: Terminals, site: SlurmRig) -> None:
    newcomer.follow(PAGE)
    newcomer.close()
    assert [] == processes(newcomer.home)
    assert [] == list(Path(newcomer.words["/project/nlp"]).iterdir())
    assert [] == [*newcomer.home.glob(".local/share/*"), *newcomer.home.glob(".config/*")]
    left = {path.name for path in newcomer.home.glob("[!.]*")}
    assert {"site.yaml", "chat.yaml", "terminal-2.log", "terminal-3.log"} == left
    assert {"COMPLETED", "CANCELLED"} >= {job.state for job in site.squeue()}


def test_discover_review_preflight_apply_answer(stranger: Installation, engine_sif: Path) -> None:
    plain = stranger.llmctl("discover", "--shared-dir", str(stranger.shared))
    stranger.llmctl("apply", "-f", "-", text=plain)  # unchanged
    documents = discovered(stranger)
    names = [each["metadata"]["name"] for each in documents]
    assert names == ["default", "gpu-a100", "gpu-h100", "mixed-long-a100", "mixed-long-h100", "cpu-nodes"]
    text = yaml.safe_dump_all(documents)
    stranger.llmctl("apply", "-f", "-", text=text)
    deployment = dict(simulator(replicas=1, image=engine_sif))
    deployment["spec"] |= {"resourceProfile": "gpu-a100:1"}
    deployment["spec"].pop("resources", None)
    deployment["spec"].pop("slurm", None)
    checks = preflight(stranger, "-f", "-", text=yaml.safe_dump(deployment))
    assert failures(checks) == []
    assert checks["md", "TestOnly"]["message"] == "would run on n1 of partition gpu"
    assert checks["md", "Account"]["message"] == "nlp"
    assert checks["md", "QOS"]["message"] == "normal"
    for name in ("Python", "SharedDirectory", "Artifacts", "Container", "Image", "GPUs", "NodeToController"):
        assert checks["node", name]["result"] == "PASS", checks["node", name]
    assert checks["controller", "GatewayToNode"]["result"] == "PASS"
    assert not list((stranger.shared / "preflight").iterdir())
    stranger.apply(deployment)
    stranger.wait_ready("sim", 1)
    with stranger.flowing() as traffic:
        stranger.wait("an answer", lambda: traffic.replicas, timeout=20)
    doctor = json.loads(stranger.llmctl("doctor", "-o", "json"))["checks"]
    assert [each for each in doctor if each["result"] == "FAIL"] == []
    fences = [each for each in doctor if each["name"] == "Fences"]
    assert [each["result"] for each in fences] == ["PASS"]
    stranger.delete("sim")
    stranger.wait_gone("sim")
    assert stranger.jobs() == []


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"partition": "nowhere"}, {"Partition", "TestOnly"}),
        ({"account": "physics"}, {"Account", "TestOnly"}),
        ({"qos": "golden"}, {"QOS", "TestOnly"}),
        ({"timeLimit": "9-00:00:00"}, {"TimeLimit", "TestOnly"}),
        ({"cpusPerGPU": 64}, {"Nodes", "TestOnly"}),
        ({"partition": "others", "timeLimit": "00:30:00"}, {"Account", "TestOnly"}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_preflight_says_what_would_go_wrong(
    stranger: Installation, changes: dict[str, Any], failing: set[str]
) -> None:
    documents = discovered(stranger)[:2]
    documents[1]["spec"] |= changes
    checks = preflight(stranger, "--skip-node", "-f", "-", text=yaml.safe_dump_all(documents), code=217)
    assert {name for _, name in failures(checks)} == failing
    assert all(each["fix"] for each in checks.values() if each["result"] == "FAIL")


def test_a_node_without_what_is_needed_is_told_by_its_job(stranger: Installation) -> None:
    documents = discovered(stranger)[:2]
    documents[0]["spec"] |= {
        "prelude": ["export PATH=/nowhere", "unset CUDA_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES"]
    }
    documents[1]["spec"]["timeLimit"] = "00:10:00"
    deployment = dict(simulator(replicas=1, image=Path("/nowhere/engine.sif")))
    deployment["spec"] |= {"resourceProfile": "gpu-a100:2"}
    text = yaml.safe_dump_all([*documents, deployment])
    checks = preflight(stranger, "-f", "-", text=text, code=217)
    on_node = {name for subject, name in failures(checks) if subject == "node"}
    assert on_node == {"Artifacts", "Container", "GPUs"}
    assert "module load apptainer" in checks["node", "Container"]["fix"]


def test_a_python_that_is_not_there_is_shown_with_the_words_of_the_job(stranger: Installation) -> None:
    documents = discovered(stranger)[:2]
    documents[0]["spec"]["python"] = "/nowhere/python3"
    checks = preflight(stranger, "-f", "-", text=yaml.safe_dump_all(documents), code=217)
    assert ("node", "Job") in failures(checks)
    assert "/nowhere/python3" in checks["node", "Job"]["message"]


def test_where_names_are_changed_replicas_are_found_by_their_comment(
    with_plugin: Callable[[str], Installation], engine_sif: Path
) -> None:
    site = with_plugin(plugins.REWRITES_NAME)
    site.apply(simulator(replicas=2, image=engine_sif))
    site.wait_ready("sim", 2)
    rows = {row["name"]: row for row in site.status("Cluster", "default")["fences"]}
    assert (rows["JobName"]["works"], rows["JobComment"]["works"]) == ("False", "True")
    assert rows["JobName"]["substitute"] == "jobs are found by their comment, which holds the name"
    site.kill_controller()
    site.start_controller()
    site.scale("sim", 3)
    site.wait_ready("sim", 3)
    running = [job for job in site.rig.squeue() if job.state == "RUNNING"]
    assert len(running) == 3
    assert all(job.name.startswith("u") for job in running)
    site.delete("sim")
    site.wait_gone("sim")
    assert [job for job in site.rig.squeue() if job.state in ("RUNNING", "PENDING")] == []


def test_where_dependencies_are_stripped_a_replica_still_has_one_engine(
    with_plugin: Callable[[str], Installation], engine_sif: Path
) -> None:
    site = with_plugin(plugins.STRIPS_DEPENDENCY)
    site.apply(simulator(replicas=1, image=engine_sif))
    site.wait_ready("sim", 1)
    rows = {row["name"]: row for row in site.status("Cluster", "default")["fences"]}
    assert (rows["Singleton"]["works"], rows["JobName"]["works"]) == ("False", "True")
    assert site.condition("Cluster", "default", "Fenced")["reason"] == "WithSubstitutes"


def test_where_nothing_survives_nothing_is_submitted(with_plugin: Callable[[str], Installation]) -> None:
    site = with_plugin(plugins.REWRITES_NAME_AND_COMMENT)
    site.apply(simulator(replicas=2))
    stalled = site.wait_condition("ModelDeployment", "sim", "Stalled", reason="SiteRewritesJobs")
    assert {job.state for job in site.rig.squeue()} <= {"CANCELLED"}  # the canary
    assert "Ask your site" in stalled["message"]


def test_the_words_of_a_plugin_that_refuses_reach_people(
    with_plugin: Callable[[str], Installation],
) -> None:
    site = with_plugin(plugins.REFUSES_WITHOUT_ACCOUNT)
    words = "Please name an account with --account (ask the helpdesk)."
    site.wait(
        "the words of the plugin",
        lambda: words in site.condition("Cluster", "default", "Fenced").get("message", ""),
        timeout=30,
    )
    profile = {"cluster": "default", "partition": "gpu", "account": "nlp", "cpus": 1, "memory": "200Mi"}
    site.apply(document("ResourceProfile", "named", profile))
    site.wait_condition("Cluster", "default", "Fenced", reason="Proven", timeout=90)
