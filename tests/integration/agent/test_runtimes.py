"""The built-in runtimes as the agent starts them, in a real container: launcher, key, probes, warm-up, signal and end.

The engines themselves need GPUs. In the place of each stands a program of its name that takes its flags and becomes the simulator as that engine.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
from pathlib import Path

import pytest
from tests.engines.simulator_process import SOURCE
from tests.integration.agent.controller import FakeController, Json
from tests.integration.agent.rig import KEY, Rig, processes_with
from tests.rigs.errors import RigError
from tests.rigs.images import engine_image

from llmop.domain.deployment import Template
from llmop.domain.profile import Profile
from llmop.domain.site import Allowed, DriverKind, Site
from llmop.manifest import admit, convert, load
from llmop.runtimes import builtin, render

SIMULATOR = SOURCE / "llmop" / "simulator"
# Becomes the simulator, with the key in a file of its own; `{flags}` maps the engine's flags to the simulator's.
BECOME = """
import os, sys

given = dict(word.partition("=")[::2] for word in sys.argv[1:] if word.startswith("--") and "=" in word)
key = {key}
descriptor = os.open("shown-key", os.O_WRONLY | os.O_CREAT, 0o600)
os.write(descriptor, key.encode())
os.close(descriptor)
{says}
flags = [to + "=" + given[flag] for flag, to in {flags!r}.items()]
os.execv(sys.executable, [sys.executable, {simulator!r}, "--personality={personality}", "--api-key-file=shown-key", *flags])
"""
LISTEN = {"--host": "--hostname", "--port": "--port", "--served-model-name": "--served-model-name"}
HF_LISTEN = {"--hostname": "--hostname", "--port": "--port"}
GENERATE: Json = {"model": "org/m", "prompt": "Hello", "max_tokens": 2}
EMBED: Json = {"model": "org/m", "input": "Hello"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """Where a program stands for the engine, how it takes the key, and a request that must be guarded."""

    runtime: str
    program: str
    key: str
    flags: dict[str, str]
    personality: str
    path: str
    body: Json
    says: str = "print('settings:', given, flush=True)"  # as the engine logs its settings


CASES = [
    Case(
        runtime="vllm",
        program="vllm",
        # Loading the guard is what vLLM does with --middleware.
        key="__import__('llmop_guard') and os.environ['VLLM_API_KEY']",
        flags={**LISTEN, "--shutdown-timeout": "--graceful-timeout", "--max-model-len": "--max-total-tokens"},
        personality="vllm",
        path="/v1/completions",
        body=GENERATE,
    ),
    Case(
        runtime="sglang",
        program="sglang/launch_server.py",
        key="given['--api-key']",
        flags={**LISTEN, "--context-length": "--max-total-tokens"},
        personality="vllm",
        path="/v1/completions",
        body=GENERATE,
        says="__import__('logging').warning(f'settings: {given}')",
    ),
    Case(
        runtime="tgi",
        program="text-generation-router",
        key="os.environ['API_KEY']",
        flags={
            **HF_LISTEN,
            "--prometheus-port": "--prometheus-port",
            "--master-port": "--master-port",
            "--shard-uds-path": "--shard-uds-path",
            "--max-total-tokens": "--max-total-tokens",
        },
        personality="tgi",
        path="/v1/completions",
        body=GENERATE,
    ),
    Case(
        runtime="tei",
        program="text-embeddings-router",
        key="os.environ['API_KEY']",
        flags={**HF_LISTEN, "--prometheus-port": "--prometheus-port"},
        personality="tei",
        path="/v1/embeddings",
        body=EMBED,
        says="print('settings:', given, key, flush=True)",
    ),
]


def engine_part(case: Case, rig: Rig, image: Path) -> Json:
    """What the controller writes into replica.json, with our programs found before any others."""
    programs = rig.shared / "programs"
    (document,) = load.load(builtin.runtimes()[f"{case.runtime}.yaml"], "runtime.yaml")
    runtime = convert.runtime(admit.admit(document.data, namespace=""))
    models = rig.shared / "models"
    (models / "m").mkdir(parents=True)
    template = Template(
        model_uri=f"file://{models}/m",
        model_name="org/m",
        max_tokens=512 if runtime.uses("maxTokens") else 0,
        runtime=case.runtime,
        image=str(image),
        env={"PATH": f"{programs}:/usr/bin:/bin", "PYTHONPATH": str(programs)},
        startup_timeout_s=60,
    )
    site = Site(
        name="default",
        driver=DriverKind.SLURM,
        shared_dir=str(rig.shared),
        allowed=Allowed(model_roots=(str(models),)),
    )
    command = render.engine_command(runtime, template, Profile(name="cpu"), site)
    binds = [*command.container["binds"], f"{programs}:{programs}:ro", f"{SIMULATOR}:{SIMULATOR}:ro"]
    return {
        "container": {**command.container, "binds": binds},
        "argv": list(command.argv),
        "env": dict(command.env),
        "envFiles": [],
        "ports": list(command.ports),
        "cwd": command.cwd,
        "requires": list(command.requires),
        "health": {**command.health, "period": 0.1},
        "warmup": dict(command.warmup or {}),
        "metrics": command.metrics,
        "startupTimeout": 60,
        "maxRestarts": 0,
        "stop": dict(command.stop),
        "apiKeyEnv": command.api_key_env,
    }


def install(case: Case, rig: Rig) -> None:
    """Puts the program in the engine's place."""
    path = rig.shared / "programs" / case.program
    path.parent.mkdir(parents=True)
    text = BECOME.format(
        key=case.key,
        flags=case.flags,
        simulator=str(SIMULATOR),
        personality=case.personality,
        says=case.says,
    )
    path.write_text(f"#!/usr/bin/python3\n{text}")
    path.chmod(0o755)
    if case.runtime == "sglang":
        (path.parent / "__init__.py").touch()
    if case.runtime == "tgi":
        launcher = path.with_name("text-generation-launcher")
        launcher.write_text('#!/bin/sh\nexec text-generation-router "$@"\n')
        launcher.chmod(0o755)


def post(port: int, path: str, body: Json, key: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    try:
        connection.request("POST", path, json.dumps(body), headers)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.runtime)
def test_a_built_in_runtime_lives_and_ends_in_a_container(
    case: Case, rig: Rig, controller: FakeController
) -> None:
    try:
        image = engine_image()
    except RigError as error:
        pytest.fail(f"no container image: {error}", pytrace=False)
    install(case, rig)
    rig.document["engine"] = engine_part(case, rig, image)

    agent = rig.start()
    ready = controller.wait_for_phase("ready")
    port = ready["endpoint"]["port"]

    assert (200, 401) == (post(port, case.path, case.body, KEY), post(port, case.path, case.body, ""))
    assert [] == processes_with(KEY)
    if case.runtime != case.personality:
        assert "sglang" == case.runtime  # whose metrics nothing here speaks
    else:
        controller.wait_for_beat(lambda beat: (beat["load"] or {}).get("queueDepth") == 0)
    controller.order(id="o1", type="drain", reason="ScaledDown", deadline=10)
    assert 0 == rig.end(agent)
    record = rig.record()
    assert ("Drained", 0) == (record["reason"], record["engineExitCode"])
    log = (rig.directory / "engine.log").read_text()
    assert "settings: {" in log
    assert KEY not in log
    assert "simulator: drained" in log, "the last line of the log is not lost"
    assert [] == processes_with(str(rig.directory / "scratch"))
