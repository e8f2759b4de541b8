"""Which objects, and what is shown of them, word for word; the files are in tests/golden/cli."""

from tests.control import manifests
from tests.integration.cli.conftest import Transcript, World
from tests.integration.cli.test_transcripts import MANIFEST, MD, PENDING, running


def several(world: World) -> None:
    """Deployments with labels in two namespaces."""
    for name, namespace, labels, replicas in (
        ("chat", "default", {"team": "nlp", "tier": "prod"}, 2),
        ("code", "default", {"team": "nlp"}, 10),
        ("rank", "lab", {"team": "search", "llmop.io/owner": "ada"}, 1),
    ):
        document = manifests.deployment(name, namespace, replicas=replicas)
        document["metadata"]["labels"] = labels
        world.add(document, uid=f"uid-{name}")
    world.status(MD, "code", conditions=PENDING, readyReplicas=1, pendingReplicas=1)
    world.replica("chat-aaaaa", phase="Ready", ready=True, node="n1", jobId="17")
    world.replica("chat-bbbbb", phase="Pending", ready=False, jobId="18")


def test_get_by_selector(transcript: Transcript) -> None:
    several(transcript.world)
    transcript.run("get", "md", "-A")
    transcript.run("get", "md", "-A", "-l", "team in (nlp, search),tier!=prod")
    transcript.run("get", "md", "-A", "-l", "!tier", "-o", "name")
    transcript.run("get", "md", "--selector", "team=cv")
    transcript.run("get", "rep", "--field-selector", "status.phase=Pending")
    transcript.run("get", "rep", "--field-selector", "spec.deployment=chat,status.ready!=false", "-o", "name")
    transcript.run("get", "md", "-A", "--field-selector", "metadata.namespace=lab")
    transcript.run("get", "md", "--field-selector", "spec.replicas=2")
    transcript.run("get", "md", "--field-selector", "metadata.name")
    transcript.run("get", "md", "chat", "--field-selector", "metadata.name=chat")


def test_get_labels_and_order(transcript: Transcript) -> None:
    several(transcript.world)
    transcript.run("get", "md", "-A", "--show-labels")
    transcript.run("get", "md", "-A", "-L", "team,llmop.io/owner", "--no-headers")
    transcript.run("get", "md", "-A", "--sort-by", ".spec.replicas")
    transcript.run("get", "md", "-A", "--sort-by", "{.metadata.labels.tier}", "-o", "name")
    transcript.run("get", "md", "--sort-by", ".spec.nothing")
    transcript.run("get", "md", "--sort-by", ".status.maybeLater", "-o", "name")
    transcript.run("get", "md", "--sort-by", ".spec[")
    transcript.run("get", "md", "-w", "--sort-by", ".metadata.name")
    transcript.run("get", "md", "-o", "name", "--show-labels")


def test_get_by_jsonpath(transcript: Transcript) -> None:
    several(transcript.world)
    transcript.run("get", "md", "chat", "-o", "jsonpath={.metadata.labels.team}")
    transcript.run(
        "get",
        "md",
        "-A",
        "-o",
        'jsonpath={range .items[*]}{.metadata.name}{"\\t"}{.spec.replicas}{"\\n"}{end}',
    )
    transcript.run("get", "md", "code", "-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].reason}')
    transcript.run("get", "md", "-o", "jsonpath=.metadata.name")
    transcript.run("get", "md", "-o", "jsonpath")
    transcript.run("get", "md", "-o", "jsonpath={.items[}")
    transcript.run("get", "md", "-o", "go-template={{.x}}")


def test_get_custom_columns(transcript: Transcript) -> None:
    several(transcript.world)
    transcript.run(
        "get",
        "md",
        "-A",
        "-o",
        "custom-columns=NAME:.metadata.name,TEAM:.metadata.labels.team,TIER:metadata.labels.tier",
    )
    transcript.run(
        "get", "md", "code", "-o", "custom-columns=TYPES:.status.conditions[*].type", "--no-headers"
    )
    transcript.run("get", "md", "-o", "custom-columns=NAME")
    transcript.run("get", "md", "-o", "custom-columns=NAME:.a[")


def test_describe_and_delete_by_selector(transcript: Transcript) -> None:
    world = transcript.world
    for name, team in (("a", "nlp"), ("b", "cv")):
        document = manifests.runtime(name)
        document["metadata"]["labels"] = {"team": team}
        world.add(document, uid=f"uid-{name}")
    transcript.run("describe", "sr", "-l", "team=cv")
    transcript.run("describe", "sr", "-l", "team=ml")
    transcript.run("describe", "sr", "a", "-l", "team=cv")
    transcript.run("delete", "sr", "-l", "team=nlp")
    transcript.run("delete", "sr", "-l", "team=nlp", "--dry-run=client")
    transcript.run("delete", "sr", "a", "--dry-run=client")
    transcript.run("delete", "sr", "nobody", "--dry-run=client")
    transcript.run("delete", "sr", "-l", "team=nlp", "--yes")
    transcript.run("delete", "sr", "--field-selector", "metadata.name=b", "--yes")
    transcript.run("delete", "sr", "-A")
    transcript.run("delete", "sr", "a", "-l", "team=nlp")
    transcript.run("get", "sr")


def test_apply_without_a_controller(transcript: Transcript) -> None:
    """--dry-run=client says what can be said about the manifests alone."""
    transcript.run("apply", "-f", transcript.write("chat.yaml", MANIFEST), "--dry-run=client")
    bad = MANIFEST.replace("replicas: 2", "replicas: -1\n  replcas: 2")
    transcript.run("apply", "-f", transcript.write("bad.yaml", bad), "--dry-run=client")
    transcript.run("apply", "-f", transcript.write("bad.yaml", bad), "--dry-run=some")
    transcript.run(
        "apply", "-f", transcript.write("old.yaml", f"{MANIFEST}status: {{}}\n"), "--dry-run=client"
    )
    transcript.run("get", "md")


def test_wait_for_a_field(transcript: Transcript) -> None:
    world = transcript.world
    running(world)
    transcript.run("wait", "md/chat", "--for=jsonpath={.status.readyReplicas}=2")
    transcript.run("wait", "md/chat", "--for=jsonpath={.status.url}")
    transcript.run("wait", "md/chat", "--for=jsonpath={.status.readyReplicas}=3", "--timeout=0")
    transcript.run("wait", "md/chat", "--for=jsonpath=.status.url")
    transcript.run("wait", "md/chat", "--for=jsonpath={.status[}=1")
