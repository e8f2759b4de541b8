"""What people see, word for word. The files are in tests/golden/cli; read them to see llmctl at work."""

import hashlib
import json
import threading
import time
from collections.abc import Callable

from tests.control import manifests
from tests.integration.cli.conftest import NOW, Transcript, World, conditions

from llmop.cli import main
from llmop.domain import artifact, resources, scaling
from llmop.domain.replica import EngineLoad
from llmop.domain.usage import Amount, UsageRow
from llmop.planner import autoscale
from llmop.store import interface

MANIFEST = """\
# a chat model
apiVersion: llmop/v1alpha1
kind: ModelDeployment
metadata:
  name: chat
spec:
  model: {name: chat}
  runtime: simulator
  resourceProfile: cpu
  replicas: 2
"""
CLUSTER = """\
apiVersion: llmop/v1alpha1
kind: Cluster
metadata:
  name: default
spec:
  driver: slurm
  sharedDir: /project/llmop
"""
READY = conditions(Ready=("True", "AllReplicasReady"), Available=("True", "MinimumAvailable"))
PENDING = conditions(
    Ready=("False", "ReplicasNotReady", "1 of 2 replicas are ready"),
    CapacityAvailable=("False", "Resources", "the job waits for free nodes"),
)
STALLED = conditions(
    Ready=("False", "Stalled", "no replica can start"),
    Stalled=("True", "EngineCrashed", "the engine ended by itself 5 times in a row"),
)
FAILURE = {
    "reason": "EngineCrashed",
    "exitCode": 70,
    "message": "the engine ended with signal 9",
    "node": "n1",
    "time": "2025-10-09T08:52:00Z",
    "logTail": ["loading \x1b[1mweights\x1b[0m", "CUDA out of memory"],
}
MD = resources.MODEL_DEPLOYMENT


def running(world: World, name: str = "chat", **spec: object) -> None:
    world.add(manifests.deployment(name, replicas=2, **spec), uid=f"uid-{name}")
    world.status(
        MD,
        name,
        conditions=READY,
        replicas=2,
        readyReplicas=2,
        updatedReplicas=2,
        availableReplicas=2,
        currentRevision="chat-1",
        url="http://127.0.0.1:8080/v1",
    )
    for suffix in ("aaaaa", "bbbbb"):
        world.replica(
            f"{name}-{suffix}",
            name,
            phase="Ready",
            ready=True,
            jobId="17",
            node="n1",
            restarts=0,
            endsAt="2025-10-09T20:53:20Z",
            endpoint={"host": "n1", "port": 40001},
        )


def later(action: Callable[[], None], when: Callable[[], bool]) -> threading.Thread:
    """Runs `action` beside the test once `when` holds."""

    def watch() -> None:
        deadline = time.monotonic() + 60
        while not when() and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        action()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def exists(world: World, kind: str, name: str) -> bool:
    return any(item.name == name for item in world.do(world.store.list(kind)).items)


def is_deleting(world: World, kind: str, name: str) -> bool:
    return any(item.deleted_at for item in world.do(world.store.list(kind)).items if item.name == name)


def remove(world: World, kind: str, name: str) -> None:
    live = world.get(kind, name)
    world.commit(
        interface.Remove(kind=kind, namespace=live.namespace, name=name, uid=live.uid, tombstoned_at=1.0)
    )


def test_apply(transcript: Transcript) -> None:
    transcript.world.base()
    file = transcript.write("chat.yaml", MANIFEST)
    transcript.run("apply", "-f", file, "--dry-run=server")
    transcript.run("apply", "-f", file)
    transcript.run("apply", "-f", file)
    transcript.run("apply", "-f", "-", stdin=MANIFEST.replace("replicas: 2", "replicas: 3"))
    transcript.run("apply", "-n", "lab", "-f", file)
    transcript.run("get", "md", "-A")


def test_apply_a_folder(transcript: Transcript) -> None:
    """What others refer to comes first, whatever the files are called."""
    transcript.write("all/a-chat.yaml", MANIFEST)
    transcript.write("all/b-site.json", json.dumps(manifests.cluster()))
    transcript.write(
        "all/c.yml", "\n---\n".join(json.dumps(each) for each in (manifests.profile(), manifests.runtime()))
    )
    transcript.write("all/deep/d.yaml", MANIFEST.replace("name: chat\nspec", "name: deep\nspec"))
    transcript.write("all/notes.txt", "no manifest")
    folder = str(transcript.world.directory / "all")
    transcript.run("diff", "-f", folder)
    transcript.run("apply", "-f", folder, "--dry-run=server")
    transcript.run("apply", "-f", folder)
    transcript.run("apply", "-R", "-f", folder)
    transcript.run("delete", "-R", "-f", folder, "--no-wait")


def test_apply_what_is_wrong(transcript: Transcript) -> None:
    transcript.world.base()
    bad = MANIFEST.replace("replicas: 2", "replicas: -1\n  replcas: 2").replace(
        "runtime: simulator", "runtime: simulater"
    )
    transcript.run("apply", "-f", transcript.write("bad.yaml", bad))
    transcript.run(
        "apply", "-f", transcript.write("nested.yaml", MANIFEST + "  probes:\n    startup: {timeout: soon}\n")
    )
    transcript.run(
        "apply", "-f", transcript.write("missing.yaml", MANIFEST.replace("simulator", "simulater"))
    )
    transcript.run("apply", "-f", transcript.write("text.yaml", "a: [1\nb: 2\n"))
    transcript.run("apply", "-f", transcript.write("twice.yaml", f"{MANIFEST}---\n{MANIFEST}"))
    mixed = f"{MANIFEST}---\n{MANIFEST.replace('name: chat', 'name: other', 1).replace('replicas: 2', 'replicas: many')}"
    transcript.run("apply", "-f", transcript.write("mixed.yaml", mixed))
    transcript.run("get", "md")
    transcript.run(
        "apply",
        "-n",
        "lab",
        "-f",
        transcript.write(
            "own.yaml", MANIFEST.replace("name: chat\nspec", "name: chat\n  namespace: own\nspec")
        ),
    )
    transcript.run(
        "apply", "-f", transcript.write("later.yaml", MANIFEST.replace("ModelDeployment", "GitSource"))
    )
    transcript.run(
        "apply", "-f", transcript.write("replica.yaml", MANIFEST.replace("ModelDeployment", "Replica"))
    )
    transcript.run("apply", "-f", str(transcript.world.directory / "absent.yaml"))
    transcript.run("apply", "-f", transcript.write("empty.yaml", "# nothing\n"))
    transcript.run("apply", "-f", "-")
    transcript.run("apply", "-f", "https://example.org/chat.yaml")
    transcript.run("apply")


def test_apply_and_wait(transcript: Transcript) -> None:
    world = transcript.world
    world.base()
    file = transcript.write("chat.yaml", MANIFEST)

    def come_up() -> None:
        world.status(MD, "chat", conditions=READY, readyReplicas=2)

    thread = later(come_up, lambda: exists(world, MD, "chat"))
    outcome = world.llmctl("apply", "-f", file, "--wait", "--timeout=60s")
    thread.join()
    expected = "modeldeployment.llmop/chat created\nmodeldeployment.llmop/chat ready\n"
    assert (expected, 0) == (outcome.stdout, outcome.code)
    world.status(MD, "chat", conditions=PENDING, readyReplicas=1, pendingReplicas=1,
                 pending={"estimatedStartTime": "2025-10-09T09:00:00Z", "source": "Slurm"})  # fmt: skip
    transcript.run("apply", "-f", file, "--wait", "--timeout=0")
    world.status(MD, "chat", conditions=STALLED, lastFailure=FAILURE)
    transcript.run("apply", "-f", file, "--wait", "--timeout=20s")


def test_conflict(transcript: Transcript) -> None:
    transcript.world.base()
    file = transcript.write("chat.yaml", MANIFEST.replace("  replicas: 2\n", ""))
    transcript.run("apply", "-f", file)
    transcript.run("scale", "md", "chat", "--replicas=4")
    transcript.run("apply", "-f", file)
    full = transcript.write("full.yaml", MANIFEST)
    transcript.run("apply", "-f", full)
    transcript.run("diff", "-f", full)
    transcript.run("apply", "-f", full, "--force-conflicts")
    transcript.run("get", "md", "chat")


def test_scale(transcript: Transcript) -> None:
    running(transcript.world)
    transcript.world.base()
    transcript.run("scale", "md/chat", "--replicas", "3", "--current-replicas", "5")
    transcript.run("scale", "md/chat", "--replicas", "3", "--current-replicas", "2")
    transcript.run("scale", "md/chat", "--replicas", "4", "--resource-version", "1")
    transcript.run("scale", "md", "nobody", "--replicas", "1")
    transcript.run("scale", "md", "chat", "--replicas=-1")
    transcript.run("scale", "rp", "cpu", "--replicas=1")
    transcript.run("scale", "md", "chat")


SCALED = MANIFEST.replace("replicas: 2", "scaling: {minReplicas: 0, maxReplicas: 4}")
STEP = {
    "time": "2025-10-09T08:48:20Z",
    "from": 1,
    "to": 3,
    "reason": "LoadRose",
    "message": "the load is more than the replicas are meant for (InFlight 40.0, target 16)",
    "inputs": {"readyReplicas": 1},
}


def test_autoscale(transcript: Transcript) -> None:
    transcript.world.base()
    transcript.run("apply", "-f", "-", stdin=MANIFEST)
    transcript.run("autoscale", "md/chat")
    transcript.run("autoscale", "md/chat", "--min=0", "--max=4", "--dry-run=server")
    transcript.run("autoscale", "md/chat", "--min=0", "--max=4")
    transcript.run("get", "md", "chat")
    transcript.run("autoscale", "md/chat")
    transcript.run("scale", "md/chat", "--replicas=2")
    transcript.run("apply", "-f", "-", stdin=MANIFEST)
    transcript.run("autoscale", "md/chat", "--max=0")
    transcript.run("autoscale", "md/chat", "--min=9")
    transcript.run("autoscale", "md/chat", "--off")
    transcript.run("autoscale", "md/chat", "--off")
    transcript.run("autoscale", "md/chat", "--off", "--min=1")
    transcript.run("autoscale", "rp/cpu")
    transcript.run("autoscale", "md/nobody")


def test_autoscale_shows_the_load(transcript: Transcript) -> None:
    world = transcript.world
    world.base()
    transcript.run("apply", "-f", "-", stdin=SCALED)
    scaled = {"scaling": {"desiredReplicas": 3}, "scalingHistory": [STEP], "readyReplicas": 1}
    world.status(MD, "chat", conditions=READY, **scaled)
    reading = autoscale.Reading(
        type=scaling.MetricType.IN_FLIGHT, target=16, stable=41.27, panic=48.0, forecast=44.5, replicas=3
    )
    tokens = autoscale.Reading(
        type=scaling.MetricType.TOKENS_PER_SECOND,
        target=900,
        stable=None,
        panic=None,
        forecast=None,
        replicas=None,
    )
    world.loads.decisions[world.get(MD, "chat").uid] = autoscale.Decision(
        desired=3,
        reason="LoadUnknown",
        message="the load is not known in full: nothing is given up",
        recommended=3,
        last=None,
        readings=(reading, tokens),
        fleet=autoscale.Fleet(ready=1, on_the_way=2, lead_s=312.0),
        is_known=False,
        is_panic=True,
        limit="",
        memory=autoscale.remember(3, 0.0),
    )
    world.loads.loads[world.get(MD, "chat").uid] = {
        "chat-bbbbb": None,
        "chat-aaaaa": EngineLoad(queue_depth=3, running=16, kv_cache_usage=0.634, age_s=4.2),
        "chat-ccccc": EngineLoad(queue_depth=0, age_s=75.0),
    }
    transcript.run("autoscale", "md/chat")
    transcript.run("describe", "md/chat")
    transcript.run("rollout", "status", "md/chat", "--no-watch")


def test_diff(transcript: Transcript) -> None:
    transcript.world.base()
    file = transcript.write("chat.yaml", MANIFEST)
    transcript.run("diff", "-f", file)
    transcript.run("apply", "-f", file)
    transcript.run("diff", "-f", file)
    changed = MANIFEST.replace("replicas: 2", "replicas: 3\n  env: {MODE: fast, SWITCH: 'no', NUMBER: '1e3'}")
    transcript.run("diff", "-f", "-", stdin=changed)
    transcript.run("diff", "-f", "-", stdin=MANIFEST.replace("replicas: 2", "replicas: -2"))
    transcript.run("diff", "--no-such-flag")


def test_get(transcript: Transcript) -> None:
    running(transcript.world)
    transcript.world.base()
    transcript.run("get", "md")
    transcript.run("get", "md", "-o", "wide")
    transcript.run("get", "md,rep")
    transcript.run("get", "rep")
    transcript.run("get", "rep", "chat-aaaaa", "-o", "wide")
    transcript.run("get", "modeldeployment/chat", "rep/chat-bbbbb")
    transcript.run("get", "md", "--no-headers")
    transcript.run("get", "md", "chat", "-o", "yaml")
    transcript.run("get", "rep", "chat-aaaaa", "-o", "json")
    transcript.run("get", "md,rep", "-o", "name")
    transcript.run("get", "sr,rp,cl")
    transcript.run("get", "rp", "-o", "yaml")
    transcript.run("get", "rev")


def test_get_nothing(transcript: Transcript) -> None:
    transcript.run("get", "md")
    transcript.run("get", "md", "-n", "lab")
    transcript.run("get", "md", "-A")
    transcript.run("get", "cl")
    transcript.run("get", "md", "-o", "json")
    transcript.run("get", "md", "chat")
    transcript.run("get", "md", "chat", "--ignore-not-found")
    transcript.run("get", "md/a", "rep/b")


def test_get_what_makes_no_sense(transcript: Transcript) -> None:
    transcript.run("get")
    transcript.run("get", "modeldeploymets")
    transcript.run("get", "pods")
    transcript.run("get", "md/a", "b")
    transcript.run("get", "md", "a", "-l", "x=y")
    transcript.run("get", "md", "-l", "a b")
    transcript.run("get", "md", "a", "-A")
    transcript.run("get", "md,rep", "-w")
    transcript.run("get", "md", "-o", "xml")
    transcript.run("frobnicate")


def test_get_by_label(transcript: Transcript) -> None:
    world = transcript.world
    for name, team in (("a", "nlp"), ("b", "cv")):
        document = manifests.deployment(name)
        document["metadata"]["labels"] = {"team": team}
        world.add(document, uid=f"uid-{name}")
    transcript.run("get", "md", "-l", "team=nlp")
    transcript.run("get", "md", "-l", "team in (nlp,cv)", "-o", "name")
    transcript.run("get", "md", "-l", "team=none")


def test_describe(transcript: Transcript) -> None:
    world = transcript.world
    world.base()
    running(world)
    world.status(
        MD, "chat", conditions=[*PENDING, *conditions(Stalled=("False", "Progressing"))], replicas=2,
        readyReplicas=1, pendingReplicas=1, retryAt="2025-10-09T08:54:02Z", lastFailure=FAILURE,
        pending={"estimatedStartTime": "2025-10-09T09:00:00Z", "source": "Slurm"},
        leadTime={"queueWaitP95": "20s", "bootP95": "3m", "last": [[15, 170], [20, 180]]},
    )  # fmt: skip
    for ago in (500, 60):
        world.event(
            "ModelDeployment",
            "chat",
            "ReplicaFailed",
            "chat-ccccc: the engine crashed",
            ago=ago,
            warning=True,
        )
    world.event("Replica", "chat-aaaaa", "Ready", "the engine answers", ago=100)
    world.event("Replica", "chat-ddddd", "EngineCrashed", "signal 9", ago=30, warning=True)  # it is gone
    world.event("Replica", "chat-eeeee", "EngineCrashed", "of an older chat", ago=700, warning=True)
    world.event("Replica", "chat-two-aaaaa", "Ready", "of another deployment", ago=20)
    transcript.run("describe", "md", "chat")
    transcript.run("describe", "rep/chat-aaaaa")
    transcript.run("describe", "cl")
    transcript.run("describe", "md", "nobody")


def test_describe_what_crashes_for_long(transcript: Transcript) -> None:
    world = transcript.world
    world.add(manifests.deployment(), uid="uid-chat")
    for number in range(30):
        world.event(
            "Replica", f"chat-aaa{number:02}", "EngineCrashed", "signal 9", ago=300 - number, warning=True
        )
    transcript.run("describe", "md", "chat")


def test_what_a_later_version_has(transcript: Transcript) -> None:
    for command in sorted(main.LATER_COMMANDS):
        transcript.run(command, "md/chat", "--flag")
    for words in resources.LATER_KINDS.values():
        for word in words:
            transcript.run("get", word)
    transcript.run("get", "md,GitSource.llmop")
    transcript.run("describe", "route/chat")
    transcript.run("explain", "gitsource.spec")


def test_keys(transcript: Transcript) -> None:
    made = transcript.run("key", "create", "ci", "--model=chat", "--requests-per-minute=60", "--expires=30d")
    stored = transcript.world.get("APIKey", "ci").spec
    transcript.run("key", "create", "ci")
    transcript.run("get", "apikeys")
    transcript.run("get", "key", "ci", "-o", "yaml")
    transcript.run("key", "create", "team", "--owner=NLP team", "--priority=Bulk", "--shadow", "--operations")
    transcript.run("get", "key", "-o", "wide")
    file = transcript.world.directory / "key.yaml"
    transcript.run("key", "create", "later", "--parallel-requests=2", "-o", str(file))
    transcript.run("key", "create", "later", "-o", str(file))
    transcript.run("apply", "-f", str(file))
    again = file.read_text().replace("name: later", "name: twin")
    transcript.run("apply", "-f", transcript.write("twin.yaml", again))
    transcript.run("key", "create", "Bad Name", "-o", str(file))
    transcript.run("key", "create", "late", "--expires=2020-13-01")
    transcript.run("key", "create", "late", "--expires=-1d")
    transcript.run("explain", "apikey.spec")
    transcript.run("delete", "apikey", "ci")
    secret = made.stdout.strip()
    assert secret.startswith("llmop-")
    assert stored["keyHash"] == "sha256:" + hashlib.sha256(secret.encode()).hexdigest()


def test_usage(transcript: Transcript) -> None:
    world = transcript.world
    transcript.run("usage")
    hour = int(NOW) // 3600 * 3600

    def row(hours: int, key: str, model: str, requests: int, **more: int) -> UsageRow:
        amount = Amount(
            requests=requests, prompt_tokens=10 * requests, completion_tokens=20 * requests, **more
        )
        return UsageRow(hour=hour - 3600 * hours, key=key, model=model, amount=amount)

    rows = [
        row(0, "default/ci", "chat", 3),
        row(1, "default/ci", "chat", 4, estimated=1),
        row(1, "nlp/team", "meta-llama/Llama-3.2-1B", 5, limited=7),
        row(30, "laptop", "chat", 1),
        row(1000, "", "chat", 100),
    ]
    world.do(world.store.add_usage("spool", 1, rows))
    transcript.run("usage")
    transcript.run("usage", "--by", "model", "--since=24h")
    transcript.run("usage", "--by", "day,key", "--since=90d")
    transcript.run("usage", "--by", "hour", "--key", "default/ci", "-o", "csv")
    transcript.run("usage", "--by", "total", "--model", "chat", "-o", "json")
    transcript.run("usage", "--since", "2025-10-01T00:00:00Z", "--until", "2025-10-08T00:00:00Z")
    transcript.run("usage", "--by", "week")
    transcript.run("usage", "--since", "yesterday")


def test_artifacts(transcript: Transcript) -> None:
    world = transcript.world
    world.base()
    shared = world.directory / "shared"
    transcript.run("artifacts")
    digest, other, commit = f"sha256:{'a' * 64}", f"sha256:{'c' * 64}", "b" * 40
    for entry, reference, told, size in (
        (f"images/{'a' * 64}.sif", "docker://ghcr.io/team/engine:1.0", digest, 8_900_000),
        (f"images/{'c' * 64}.sif", "docker://ghcr.io/team/engine:0.9", other, 7_000_000),
    ):
        (shared / "images").mkdir(parents=True, exist_ok=True)
        with (shared / entry).open("wb") as file:
            file.truncate(size)
        facts = {"reference": reference, "digest": told, "stagedAt": "2025-10-04T08:53:20+00:00"}
        (shared / entry.replace(".sif", ".json")).write_text(json.dumps(facts))
    model = artifact.entry(artifact.parse_model("hf://team/model", ""), commit)
    (shared / "models/.staging" / model.removeprefix("models/")).mkdir(parents=True)
    world.revision(
        "chat-1",
        artifacts=[
            {"reference": "docker://ghcr.io/team/engine:1.0", "digest": digest},
            {"reference": "hf://team/model@main", "digest": commit},
        ],
    )
    transcript.run("artifacts")
    transcript.run("artifacts", "--cluster", "default")
    transcript.run("artifacts", "--cluster", "elsewhere")
    transcript.run("artifacts", "--dry-run")
    transcript.run("artifacts", "prune", "--dry-run")
    transcript.run("artifacts", "prune")
    transcript.run("artifacts", "prune")
    transcript.run("artifacts", "burn")
    transcript.run("artifacts")


def test_events(transcript: Transcript) -> None:
    world = transcript.world
    transcript.run("events")
    world.event("Replica", "chat-aaaaa", "Submitted", "job 17", ago=300)
    world.event("ModelDeployment", "chat", "ScaledUp", "from 0 to 2", ago=400)
    for ago in (200, 150, 30):
        world.event("Replica", "chat-aaaaa", "Probe", "slow\x1b[31m answer", ago=ago, warning=True)
    transcript.run("events")
    transcript.run("events", "--for", "md/chat")
    transcript.run("events", "--for", "rep/chat-aaaaa", "--no-headers")
    transcript.run("events", "-n", "lab")
    transcript.run("get", "ev")
    transcript.run("events", "--for", "chat")


def test_delete(transcript: Transcript) -> None:
    world = transcript.world
    world.base()
    running(world)
    transcript.run("delete", "md", "chat", "--dry-run=server")
    transcript.run("delete", "sr", "simulator")
    transcript.run("delete", "md", "chat", "--timeout=0")
    transcript.run("get", "md")
    transcript.run("apply", "-f", "-", stdin=MANIFEST)

    def finish() -> None:
        for name in ("chat-aaaaa", "chat-bbbbb"):
            remove(world, resources.REPLICA, name)
        remove(world, MD, "chat")

    finish()
    transcript.run("delete", "md", "chat")
    transcript.run("delete", "md", "chat", "--ignore-not-found")
    transcript.run("delete", "sr/simulator", "rp/cpu", "cl/default")
    transcript.run("delete", "rev", "x")
    transcript.run("delete", "md")


def test_delete_and_wait(transcript: Transcript) -> None:
    world = transcript.world
    running(world)
    thread = later(lambda: remove(world, MD, "chat"), lambda: is_deleting(world, MD, "chat"))
    outcome = world.llmctl("delete", "md", "chat", "--timeout=60s")
    thread.join()
    assert ('modeldeployment.llmop "chat" deleted from default namespace\n', 0) == (
        outcome.stdout,
        outcome.code,
    )
    thread = later(
        lambda: remove(world, resources.REPLICA, "chat-aaaaa"),
        lambda: is_deleting(world, resources.REPLICA, "chat-aaaaa"),
    )
    outcome = world.llmctl("delete", "rep", "chat-aaaaa", "--timeout=60s")
    thread.join()
    assert ('replica.llmop "chat-aaaaa" deleted from default namespace\n', 0) == (
        outcome.stdout,
        outcome.code,
    )
    transcript.run("get", "rep")


def test_delete_all(transcript: Transcript) -> None:
    world = transcript.world
    for name in ("a", "b"):
        world.add(manifests.runtime(name), uid=f"uid-{name}")
    transcript.run("delete", "sr", "--all")
    transcript.run("delete", "sr", "--all", "--yes")
    transcript.run("delete", "sr", "--all", "--yes")


def test_wait(transcript: Transcript) -> None:
    world = transcript.world
    running(world)
    transcript.run("wait", "md/chat", "--for=condition=ready")
    transcript.run("wait", "md", "chat", "--for=condition=Ready=False", "--timeout=0")
    transcript.run("wait", "md/nobody", "--for=create", "--timeout=0")
    transcript.run("wait", "md/nobody", "--for=delete")
    transcript.run("wait", "md/chat", "--for=create", "--for=condition=Available")
    transcript.run("wait", "md/chat", "--for=condition=Raedy", "--timeout=0")
    transcript.run("wait", "md/chat", "--for=condition=Healthy", "--timeout=0")
    world.status(MD, "chat", conditions=PENDING, readyReplicas=1, pendingReplicas=1)
    transcript.run("wait", "md/chat", "--for=condition=Ready", "--timeout=0")
    world.status(MD, "chat", conditions=STALLED, lastFailure=FAILURE)
    transcript.run("wait", "md/chat", "--for=condition=Ready", "--timeout=20s")
    transcript.run("wait", "md/chat", "--for=condition=Stalled", "--timeout=20s")
    transcript.run("wait", "md/chat", "--for=jsonpath={.x}", "--timeout=0")
    transcript.run("wait", "md/chat", "--for=condition=Ready", "--timeout=soon")


def test_wait_for_what_comes(transcript: Transcript) -> None:
    """The object, and then its condition, may come after the wait began."""
    world = transcript.world

    def come() -> None:
        world.add(manifests.deployment(), uid="uid-chat")
        world.status(MD, "chat", conditions=READY, readyReplicas=1)

    threading.Timer(0.2, come).start()
    outcome = world.llmctl("wait", "md/chat", "--for=condition=Ready", "--timeout=60s")
    assert ("modeldeployment.llmop/chat condition met\n", 0) == (outcome.stdout, outcome.code)
    threading.Timer(0.2, lambda: remove(world, MD, "chat")).start()
    transcript.run("wait", "md/chat", "--for=delete", "--timeout=20s")


def test_wait_for_a_crash_loop(transcript: Transcript) -> None:
    """Who waited in vain reads why at once."""
    world = transcript.world
    running(world)
    crashing = conditions(
        Ready=("False", "CrashLoopBackOff", "3 replicas of this template ended although they were wanted")
    )
    world.status(MD, "chat", conditions=crashing, lastFailure=FAILURE)
    transcript.run("wait", "md/chat", "--for=condition=Ready", "--timeout=0")


def test_an_old_status_does_not_count(transcript: Transcript) -> None:
    """A condition about an older version of the object says nothing about the new one."""
    world = transcript.world
    world.base()
    running(world)
    world.status(MD, "chat", conditions=STALLED, lastFailure=FAILURE)
    transcript.run("scale", "md/chat", "--replicas=3")
    transcript.run("wait", "md/chat", "--for=condition=Ready", "--timeout=0")


def test_version(transcript: Transcript) -> None:
    transcript.run("version")
    transcript.run("version", "--client")
    transcript.run("version", "-o", "json")
    transcript.run("--version")
    transcript.run("verzion")
    transcript.run("nothing-like-it")


def test_explain(transcript: Transcript) -> None:
    transcript.run("explain", "md.spec.replicas")
    transcript.run("explain", "nothing")
    transcript.run("explain", "md.spec.replcas")


def test_apply_what_get_has_printed(transcript: Transcript) -> None:
    """One object and a List go round; what was typed into the controller's place is named."""
    running(transcript.world)
    transcript.world.base()
    one = transcript.run("get", "md", "chat", "-o", "yaml").stdout
    transcript.run("apply", "-f", "-", stdin=one)
    transcript.run("diff", "-f", "-", stdin=one)
    transcript.run("apply", "-f", "-", stdin=one.replace("replicas: 2\n", "replicas: 3\n", 1))
    shown = transcript.run("get", "clusters,rp,sr,md", "-o", "yaml").stdout
    everything = shown.replace("/home/me", str(transcript.world.directory))
    transcript.run("apply", "-f", "-", stdin=everything)
    transcript.run("apply", "--dry-run=server", "-f", "-", stdin=everything)
    typed = transcript.write("typed.yaml", MANIFEST + "status:\n  readyReplicas: 2\n")
    transcript.run("apply", "-f", typed, "--force")
    transcript.run("diff", "-f", typed)
    transcript.run("apply", "-f", transcript.write("list.yaml", "kind: List\nitems:\n- 1\n"))


def test_a_cluster_in_use_is_not_moved(transcript: Transcript) -> None:
    running(transcript.world)
    transcript.world.base()
    cluster = transcript.write("cluster.yaml", CLUSTER)
    transcript.run("apply", "-f", cluster)
    transcript.run("apply", "--dry-run=server", "-f", cluster)
