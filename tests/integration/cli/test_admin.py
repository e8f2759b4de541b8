"""What people see of discover, preflight and doctor, word for word."""

from tests.integration.cli.conftest import Transcript

from llmop.domain.checks import failed, passed, warned

MANIFEST = """\
apiVersion: llmop/v1alpha1
kind: ModelDeployment
metadata:
  name: chat
spec:
  runtime: simulator
  resourceProfile: cpu
"""
CHECKS = [
    passed("cluster default", "Slurm", "22.05.8, rig"),
    warned(
        "md default/chat", "Account", "not checked: Slurm shows no accounts", "sbatch --test-only decides"
    ),
    failed("node n1", "Container", "no apptainer\x1b[31m in PATH\n(/bin)", "load it in spec.prelude"),
]


def test_discover(transcript: Transcript) -> None:
    world = transcript.world
    world.administration.files = {
        "cluster-default.yaml": "# Slurm 22.05.8\nkind: Cluster\n",
        "profile-gpu.yaml": "kind: ResourceProfile\n",
    }
    transcript.run("discover")
    transcript.run("discover", "--cluster", "hpc", "--shared-dir", "/project/llmop")
    folder = str(world.directory / "site")
    transcript.run("discover", "-o", folder)
    transcript.run("discover", "-o", folder)
    transcript.run("discover", "cl/default")
    assert world.administration.discovered[:2] == [("default", ""), ("hpc", "/project/llmop")]
    assert (world.directory / "site" / "profile-gpu.yaml").read_text() == "kind: ResourceProfile\n"


def test_discover_writes_only_into_its_folder(transcript: Transcript) -> None:
    transcript.world.administration.files = {"../../outside.yaml": "kind: Cluster\n"}
    transcript.run("discover", "-o", str(transcript.world.directory / "site"))
    assert [path.name for path in (transcript.world.directory / "site").iterdir()] == ["outside.yaml"]


def test_preflight(transcript: Transcript) -> None:
    world = transcript.world
    world.administration.checks = CHECKS
    transcript.run("preflight")
    transcript.run("preflight", "-o", "json", "md/chat", "--skip-node")
    world.administration.checks = CHECKS[:2]
    transcript.run("preflight", "-f", transcript.write("chat.yaml", MANIFEST), "--wait", "90s", "-n", "lab")
    transcript.run("preflight", "rep/chat-1")
    transcript.run("preflight", "--wait", "0s")
    transcript.run("preflight", "-f", transcript.write("broken.yaml", "a: [\n"))
    first, second, third = world.administration.questions
    assert (first.cluster, first.deployment, first.wait_s, first.skip_node) == ("", "", 300.0, False)
    assert (second.deployment, second.skip_node) == ("chat", True)
    assert (third.namespace, third.wait_s, len(third.manifests_json)) == ("lab", 90.0, 1)


def test_doctor(transcript: Transcript) -> None:
    transcript.world.administration.checks = [passed("store", "Answers"), *CHECKS[1:]]
    transcript.run("doctor")
    transcript.run("doctor", "-o", "json")
    transcript.run("doctor", "-o", "yaml")
    transcript.world.administration.checks = [passed("store", "Answers")]
    transcript.run("doctor")
