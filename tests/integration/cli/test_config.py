"""llmctl config, completion and explain: what needs no controller."""

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.control import manifests
from tests.integration.cli.conftest import Transcript, World
from tests.integration.cli.test_processes import LLMCTL, environment

from llmop.cli import contexts


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("LLMOP_CONTEXT", raising=False)
    return tmp_path


def test_config(home: Path, transcript: Transcript, monkeypatch: pytest.MonkeyPatch) -> None:
    transcript.alone("config", "current-context")
    transcript.alone("config", "get-contexts")
    transcript.alone("config", "set-context", "laptop")
    transcript.alone("config", "set-context", "laptop", "--gateway=http://127.0.0.1:8080")
    transcript.alone(
        "config", "set-context", "laptop", "--controller=unix:///run/llmop.sock", "--key-file=/keys/laptop"
    )
    transcript.alone("config", "set-context", "hpc", "--controller=unix:///hpc.sock", "--namespace=lab")
    transcript.alone("config", "use-context", "laptop")
    transcript.alone("config", "use-context", "nowhere")
    transcript.alone("config", "set-context", "laptop", "--gateway=unix:/run/gateway.sock")
    transcript.alone("config", "set-context", "laptop", "--key-file=")
    transcript.alone("config", "set-context", "laptop", "--controller=https://example.org")
    transcript.alone("config", "set-context", "laptop", "--gateway=ftp://example.org")
    transcript.alone("config", "get-contexts")
    transcript.alone("config", "get-contexts", "-o", "name")
    transcript.alone("config", "current-context")
    monkeypatch.setenv("LLMOP_CONTEXT", "hpc")
    transcript.alone("config", "current-context")
    transcript.alone("config", "use-context", "laptop")
    transcript.alone("config", "get-contexts", "--no-headers")
    (home / "config" / "llmop" / "contexts.yaml").write_text("- a\n")
    transcript.alone("config", "get-contexts")
    transcript.alone("config", "use-context", "laptop")


def test_a_context_has_a_namespace(home: Path, world: World) -> None:
    """It is used where neither -n nor a manifest names one; by get, apply and delete alike."""
    world.base()
    here = contexts.Context(name="here", controller=world.address, namespace="lab")
    contexts.save(contexts.default_path(os.environ), here)
    document = json.dumps(manifests.deployment())
    assert 0 == world.alone("apply", "-f", "-", stdin=document).code
    assert "modeldeployment.llmop/chat\n" == world.alone("get", "md", "-o", "name").stdout
    assert "" == world.alone("get", "md", "-n", "default", "-o", "name").stdout
    outcome = world.alone("delete", "-f", "-", "--no-wait", stdin=document)
    assert 'modeldeployment.llmop "chat" deleted from lab namespace\n' == outcome.stdout
    contexts.save(contexts.default_path(os.environ), dataclasses.replace(here, namespace=""))
    assert "No resources found in default namespace.\n" == world.alone("get", "md").stderr


def test_explain_more(transcript: Transcript) -> None:
    transcript.alone("explain", "md.spec.probes", "--recursive")
    transcript.alone("explain", "rp", "--recursive")
    transcript.alone("explain")
    transcript.alone("explain", "rep")
    transcript.alone("explain", "rep", "--schema")
    transcript.alone("explain", "md.spec", "--schema")
    schema = json.loads(transcript.world.alone("explain", "--schema").stdout)
    assert {"ModelDeployment", "Cluster"} < schema["$defs"].keys()
    assert (
        "ModelDeployment" == json.loads(transcript.world.alone("explain", "md", "--schema").stdout)["title"]
    )


def completed(*words: str, **variables: str) -> list[str]:
    """What bash offers for the last of `words`."""
    done = subprocess.run(
        LLMCTL,
        capture_output=True,
        text=True,
        env=environment(
            COMP_WORDS=" ".join(["llmctl", *words]),
            COMP_CWORD=str(len(words)),
            _LLMCTL_COMPLETE="bash_complete",
            **variables,
        ),
        timeout=60,
        check=True,
    )
    assert "" == done.stderr
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_a_shell_completes_commands_types_options_and_fields() -> None:
    assert ["config"] == completed("conf")
    assert ["get-contexts"] == completed("config", "get-")
    assert ["replicas", "revisions", "resourceprofiles"] == completed("get", "re")
    assert ["--sort-by"] == completed("get", "md", "--sort")
    assert ["md.spec.rolloutStrategy"] == completed("explain", "md.spec.ro")
    assert ["md.spec.rolloutStrategy.maxSurge"] == completed("explain", "md.spec.rolloutStrategy.maxS")
    assert [] == completed("get", "nothing", "x")
    assert [] == completed("edit", "x")


def test_a_shell_completes_names_of_objects_and_contexts(home: Path, world: World) -> None:
    for name in ("chat", "code"):
        world.add(manifests.deployment(name), uid=f"uid-{name}")
    here = contexts.Context(name="here", controller=world.address)
    contexts.save(contexts.default_path(os.environ), here)
    place = {"XDG_CONFIG_HOME": str(home / "config")}
    assert ["chat", "code"] == completed("get", "md", "c", **place)
    assert ["code"] == completed("get", "md", "chat", "c", **place)
    assert ["md/chat"] == completed("describe", "md/ch", **place)
    assert ["md/chat", "md/code"] == completed("scale", "md/", **place)
    assert ["md/chat"] == completed("rollout", "restart", "md/ch", **place)
    assert [] == completed("get", "md", "c", "-n", "lab", "", **place)
    assert ["here"] == completed("config", "use-context", "h", **place)
    nobody = contexts.Context(name="here", controller=f"unix://{home}/nobody.sock")
    contexts.save(contexts.default_path(os.environ), nobody)
    assert [] == completed("get", "md", "c", **place)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_a_shell_reads_is_a_program(shell: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*LLMCTL, "completion", shell],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
        timeout=60,
    )
    assert "_LLMCTL_COMPLETE" in done.stdout
    program = tmp_path / "completion"
    program.write_text(done.stdout)
    if shutil.which(shell):  # each of them is judged where it is there; bash is everywhere
        checked = subprocess.run(
            [shell, "-n", str(program)], capture_output=True, text=True, timeout=60, check=False
        )
        assert (0, "") == (checked.returncode, checked.stderr)


def test_bash_completes_with_what_it_was_given(home: Path, tmp_path: Path) -> None:
    """The whole way through a real bash: its function asks llmctl and fills in the reply."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "llmctl").write_text(f'#!/bin/sh\nexec {" ".join(LLMCTL)} "$@"\n')
    (bin_ / "llmctl").chmod(0o755)
    script = (
        "source <(llmctl completion bash); COMP_WORDS=(llmctl roll); COMP_CWORD=1; "
        '_llmctl_completion llmctl; echo "${COMPREPLY[@]}"'
    )
    variables = environment(XDG_CONFIG_HOME=str(home / "config"))
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        env={**variables, "PATH": f"{bin_}:{variables['PATH']}"},
        timeout=60,
        check=True,
    )
    assert "rollout\n" == done.stdout
