"""What is stored reaches the job as it is: the batch script, the command line of sbatch, and what the agent starts; no shell runs any of it."""

import copy
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.texts import WRITTEN
from tests.unit.agent.replica_json import replica_json
from tests.unit.manifest.pairs import CONVERT
from tests.unit.manifest.test_hostile_texts import MANIFESTS as EVERY_FIELD
from tests.unit.manifest.test_hostile_texts import places, put

from llmop.agent.agent import Config, Launch
from llmop.cluster.slurm import script
from llmop.domain import errors
from llmop.manifest import admit, paths
from llmop.reconciler import render
from llmop.store import interface
from llmop.testing import builders

MANIFESTS = copy.deepcopy(
    {each["kind"]: each for each in reversed(EVERY_FIELD.values())}
)  # the first of each kind
MANIFESTS["ModelDeployment"]["spec"]["model"] = {"uri": "file:///models/a", "maxTokens": 2}
MANIFESTS["ServingRuntime"]["spec"] |= {"apiKeyEnv": "KEY", "env": {"OF_RUNTIME": "a"}}
SHELLCHECK = str(Path(sys.executable).with_name("shellcheck"))
# Lines of shell that the admin writes for all jobs: they are run.
TRUSTED = "spec.prelude[0]"


def stored(kind: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Every field of the kind, every text that is stored there, and the manifest."""
    for steps, text in itertools.product(places(MANIFESTS[kind]), WRITTEN):
        path = paths.build(steps)
        if path == TRUSTED:
            continue
        try:
            resource = admit.admit(put(MANIFESTS[kind], steps, text), namespace="")
        except errors.Invalid:
            continue
        yield path, text, admit.document(resource)


def prepared(kind: str, manifest: Mapping[str, Any]) -> Any:
    """The submission of a replica, one of whose four objects is `manifest`."""
    objects = {
        each: CONVERT[each](admit.admit(manifest if each == kind else MANIFESTS[each], namespace=""))
        for each in MANIFESTS
    }
    replica = builders.a_replica()
    ledger = interface.Ledger(
        replica_uid=replica.uid,
        namespace=replica.namespace,
        replica_name=replica.name,
        cluster=replica.cluster,
        submission=replica.submission,
        secrets=interface.Secrets(api_key="key", agent_token="token"),
    )
    return render.prepared(
        render.Installation(id="k3v9qd", agent="/agent.py", ca=replica_json()["ca"]),
        replica,
        ledger,
        objects["ModelDeployment"].spec.template,
        objects["ServingRuntime"],
        objects["ResourceProfile"],
        objects["Cluster"],
    )


def run(
    command: list[str], directory: Path, *, stdin: str = "", variables: Mapping[str, str] | None = None
) -> list[str]:
    """The NUL-separated words that the command leaves in the file `said`. It runs where a command that got loose would leave a trace."""
    place = directory / "place"
    place.mkdir(exist_ok=True)
    said = directory / "said"
    said.unlink(missing_ok=True)
    subprocess.run(
        command,
        input=stdin.encode(),
        env={
            **(variables or {}),
            "PATH": f"{directory}:/usr/bin:/bin",
            "SAID": str(said),
            "LANG": "C.UTF-8",
        },
        cwd=place,
        check=True,
        capture_output=True,
        timeout=30,
    )
    assert [] == list(place.iterdir())
    return said.read_bytes().decode().split("\0")[:-1]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """With a stand-in for sbatch and for the engine."""
    for name, what in (("sbatch", '"$@"'), ("engine", '"${A-}" "${OF_RUNTIME-}" "$@"')):
        (tmp_path / name).write_text(f'#!/bin/bash\nprintf "%s\\0" {what} > "$SAID"\n')
        (tmp_path / name).chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("kind", MANIFESTS)
def test_the_script_and_the_command_line_hold_every_text_as_one_word(kind: str, place: Path) -> None:
    scripts: dict[str, list[str]] = {}
    lines: dict[tuple[str, ...], None] = {}
    for _, _, manifest in stored(kind):
        ready = prepared(kind, manifest)
        shared = manifest["spec"].get("sharedDir", "/a").rstrip("/")
        python = manifest["spec"].get("python", "/a")
        scripts[ready.request.script] = [
            *(python, "-I", "/agent.py", "--config"),
            f"{shared}/replicas/chat-r1/replica.json",
        ]
        lines[tuple(script.sbatch_argv(ready.request))] = None

    for text, words in scripts.items():
        subprocess.run(["bash", "-n"], input=text.encode(), check=True, capture_output=True, timeout=30)
        # The last line is `exec ...`: a function of this name gets its words.
        assert words == run(
            ["bash", "-s"], place, stdin='exec() { printf "%s\\0" "$@" > "$SAID"; }\na() { :; }\n' + text
        )
    for line in lines:
        assert list(line[1:]) == run(list(line), place)
    found = check_shell(place, list(scripts))
    assert (0, "") == (found.returncode, found.stdout)


def check_shell(directory: Path, scripts: list[str]) -> subprocess.CompletedProcess[str]:
    files = [directory / f"script-{number}" for number in range(len(scripts))]
    for file, text in zip(files, scripts, strict=True):
        file.write_text(text, encoding="utf-8")
    return subprocess.run(
        [SHELLCHECK, "--shell=bash", "--severity=warning", *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("container", ["apptainer", "none"])
@pytest.mark.parametrize(
    ("kind", "variable"), [("ModelDeployment", "spec.env.A"), ("ServingRuntime", "spec.env.OF_RUNTIME")]
)
def test_the_engine_gets_every_text_as_one_word(
    kind: str, variable: str, container: str, place: Path
) -> None:
    """In a container a shell stands between agent and engine: here it is run without the container."""
    seen = set()
    engines = set()
    for path, text, manifest in stored(kind):
        document = json.loads(json.dumps(prepared(kind, manifest).config))
        engine = document["engine"]
        engine |= {"container": {**engine["container"], "kind": container}, "envFiles": []}
        engine["argv"][0] = "engine"
        if json.dumps(engine) in engines:
            continue  # the engine is not told of this field
        engines.add(json.dumps(engine))
        launch = Launch(
            Config({**document, "dir": str(place)}, str(place)),
            {"http": 7, "b": 8},
            "127.0.0.1",
            "apptainer",
            {"PATH": f"{place}:/usr/bin:/bin"},
        )
        order = launch.order("/log")
        command = order["argv"]
        if container == "apptainer":
            command = command[command.index("/bin/sh") :]
        of_deployment, of_runtime, *words = run(command, place, variables=order["env"])
        launch.remove()
        heard = {"spec.env.A": [of_deployment], "spec.env.OF_RUNTIME": [of_runtime], "spec.args[0]": words}
        if path in heard:
            assert text in heard[path], path
            seen.add(path)
    assert {"spec.args[0]", variable} == seen
