"""The engine part of replica.json: whole command lines against tests/golden/runtimes, and values that must arrive verbatim."""

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmop.domain import placeholders
from llmop.domain.deployment import Template
from llmop.domain.profile import Profile
from llmop.domain.runtime import EngineCommand, Runtime, Warmup
from llmop.domain.site import Allowed, DriverKind, Site
from llmop.manifest import admit, convert, load
from llmop.runtimes import builtin, render
from llmop.runtimes.engines import llamacpp_server
from llmop.simulator.options import parse_options

GOLDEN = Path(__file__).parents[2] / "golden" / "runtimes"
STEADY = settings(deadline=None, derandomize=True)

SITE = Site(
    name="default",
    driver=DriverKind.SLURM,
    shared_dir="/shared/llmop",
    python="/opt/llmop/bin/python",
    allowed=Allowed(model_roots=("/models", "/models/hub"), secret_root="/secrets"),
)
PROFILE = Profile(name="a100", gres="gpu:a100")
PLAIN = Runtime(name="plain", engine="plain", command=("run", "--port={port}"), model_required=False)
TEMPLATE = Template(model_uri="", model_name="m", runtime="plain")


def runtime(name: str) -> Runtime:
    (document,) = load.load(builtin.runtimes()[f"{name}.yaml"], f"{name}.yaml")
    return convert.runtime(admit.admit(document.data, namespace=""))


CASES = {
    "simulator": Template(model_uri="", model_name="sim", runtime="simulator", args=("--load-seconds=2",)),
    "simulator-in-container": Template(
        model_uri="", model_name="sim", runtime="simulator", image="/images/python.sif", env={"A": "b"}
    ),
    "llamacpp": Template(
        model_uri="file:///models/my model.gguf",
        model_name="org/tiny",
        runtime="llamacpp",
        args=("--parallel=4",),
        startup_timeout_s=60,
    ),
    "tgi": Template(
        model_uri="file:///models/Llama-3.1-8B-Instruct",
        model_name="meta-llama/Llama-3.1-8B-Instruct",
        runtime="tgi",
        image="/images/tgi-3.3.6.sif",
        args=("--max-concurrent-requests=256",),
        env={"LOG_LEVEL": "info"},
        env_files=("team/hf.env",),
        profile="a100",
        gpus=2,
        readiness_period_s=10,
        liveness_failure_threshold=5,
    ),
}


def command(template: Template, of: Runtime = PLAIN, site: Site = SITE) -> EngineCommand:
    return render.engine_command(of, template, PROFILE, site)


def on_the_node(text: str, values: dict[str, str]) -> str:
    """What the agent makes of a rendered text."""
    return "".join(
        part
        if isinstance(part, str)
        else values[f"{part.name}:{part.argument}" if part.argument else part.name]
        for part in placeholders.parse(text)
    )


NODE = {
    "port": "40001",
    "port:prometheus": "40002",
    "port:master": "40003",
    "host": "10.0.0.1",
    "scratch": "/tmp/s",
    "sockets": "/tmp/u",
    "apiKeyFile": "/tmp/s/key",
}


@pytest.mark.parametrize("name", CASES)
def test_a_built_in_runtime_gives_exactly_this_command(name: str) -> None:
    """A change here is a change of every replica: write the new text into the golden file only if it is meant."""
    template = CASES[name]

    rendered = json.dumps(dataclasses.asdict(command(template, runtime(template.runtime))), indent=2) + "\n"

    assert (GOLDEN / f"{name}.json").read_text(encoding="utf-8") == rendered


@pytest.mark.parametrize("name", ["simulator", "simulator-in-container"])
def test_the_simulator_knows_every_flag_it_is_given(name: str, tmp_path: Path) -> None:
    key = _key(tmp_path)
    argv = [
        on_the_node(text, {**NODE, "apiKeyFile": str(key)})
        for text in command(CASES[name], runtime("simulator")).argv
    ]

    options = parse_options(argv[2:], {})

    assert ("10.0.0.1", 40001, "sim", "secret") == (
        options.hostname,
        options.port,
        options.served_model_name,
        options.api_key,
    )
    assert (40002, 40003, "/tmp/u/shard") == (
        options.prometheus_port,
        options.master_port,
        options.shard_uds_path,
    )


def test_llamacpp_knows_every_flag_it_is_given(tmp_path: Path) -> None:
    key = _key(tmp_path)
    argv = [
        on_the_node(text, {**NODE, "apiKeyFile": str(key)})
        for text in command(CASES["llamacpp"], runtime("llamacpp")).argv
    ]

    options = llamacpp_server.parse(argv[3:])

    assert (Path("/models/my model.gguf"), "10.0.0.1", 40001, "org/tiny", "secret", 4) == (
        options.model,
        options.host,
        options.port,
        options.alias,
        options.api_key,
        options.parallel,
    )


def test_tgi_gets_no_name_that_its_launcher_would_read_as_a_flag() -> None:
    result = command(CASES["tgi"], runtime("tgi"))

    assert (
        not {"PORT", "HOSTNAME", "MASTER_PORT", "MASTER_ADDR", "REVISION", "DTYPE", "API_KEY"}
        & result.env.keys()
    )
    assert "" == result.api_key_env


def test_tgis_router_gets_the_key_from_the_file_and_no_process_has_it_among_its_arguments(
    tmp_path: Path,
) -> None:
    """TGI's launcher would hand a key of its own on as `--api-key`; here a launcher and a router that print what they get."""
    programs = tmp_path / "programs"
    programs.mkdir()
    _program(
        programs / "text-generation-launcher",
        'echo "launcher: ${API_KEY-none} $*"\nexec text-generation-router --port 1',
    )
    _program(programs / "text-generation-router", 'echo "router: $API_KEY $*"')
    node = {**NODE, "scratch": str(tmp_path / "scratch dir"), "apiKeyFile": str(_key(tmp_path))}
    argv = [on_the_node(text, node) for text in command(CASES["tgi"], runtime("tgi")).argv]

    done = subprocess.run(
        argv,
        env={"PATH": f"{programs}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert (
        "launcher: none --model-id=/models/Llama-3.1-8B-Instruct --num-shard=2 --hostname=10.0.0.1 --port=40001"
        f" --prometheus-port=40002 --master-port=40003 --shard-uds-path=/tmp/u/shard"
        f" --huggingface-hub-cache={tmp_path}/scratch dir/hub --graceful-termination-timeout=90"
        " --usage-stats=off --json-output --max-concurrent-requests=256\n"
        "router: secret --port 1\n"
    ) == done.stdout


def test_tgis_router_does_not_start_without_a_key(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    _program(programs / "text-generation-launcher", "exec text-generation-router")
    _program(programs / "text-generation-router", "echo started")
    empty = tmp_path / "empty"
    empty.touch()
    node = {**NODE, "scratch": str(tmp_path / "s"), "apiKeyFile": str(empty)}
    argv = [on_the_node(text, node) for text in command(CASES["tgi"], runtime("tgi")).argv]

    done = subprocess.run(
        argv,
        env={"PATH": f"{programs}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (78, "") == (done.returncode, done.stdout)


HOSTILE = [
    "{scratch}",
    "{{",
    "}}",
    "{",
    "{port:x}",
    "{{scratch}}",
    "$(id)",
    "`id`",
    "it's",
    'a "b"',
    "a\nb",
    "",
    "--",
    "%s",
    "\\",
    "é😀",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_values_arrive_verbatim_as_one_argument(value: str) -> None:
    template = dataclasses.replace(
        TEMPLATE,
        model_uri=f"file:///m/{value}",
        model_name=f"n{value}",
        args=("first", value, "last"),
        env={"V": value},
    )
    engine = dataclasses.replace(
        PLAIN, command=("run", "{model}", "--name={servedName}"), args=("--port={port}",)
    )

    result = command(template, engine)

    assert ["run", f"/m/{value}", f"--name=n{value}", "--port=40001", "first", value, "last"] == [
        on_the_node(text, NODE) for text in result.argv
    ]
    assert value == on_the_node(result.env["V"], NODE)
    assert (f"/m/{value}",) == result.requires


@STEADY
@given(args=st.lists(st.text(st.sampled_from("{}port:scathPK ey\n$'\"\\"), max_size=12), max_size=4))
def test_any_arguments_arrive_verbatim(args: list[str]) -> None:
    result = command(dataclasses.replace(TEMPLATE, args=tuple(args)))

    assert ["run", "--port=40001", *args] == [on_the_node(text, NODE) for text in result.argv]


def test_braces_of_a_runtime_stay_braces() -> None:
    engine = dataclasses.replace(PLAIN, command=("run", '{{"port": {port}}}'))

    assert '{"port": 40001}' == on_the_node(command(TEMPLATE, engine).argv[1], NODE)


def test_a_placeholder_that_nobody_fills_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"has the placeholder \{prot\}, which nobody fills"):
        command(TEMPLATE, dataclasses.replace(PLAIN, command=("run", "{prot}")))


def test_the_deployments_environment_wins_over_the_runtimes() -> None:
    engine = dataclasses.replace(PLAIN, env={"A": "{scratch}/a", "B": "{scratch}/b"})

    assert {"A": "{{x}}", "B": "{scratch}/b"} == command(
        dataclasses.replace(TEMPLATE, env={"A": "{x}"}), engine
    ).env


def test_secret_files_lie_below_the_secret_root() -> None:
    assert ("/secrets/team/hf.env",) == command(
        dataclasses.replace(TEMPLATE, env_files=("team/hf.env",))
    ).env_files


@pytest.mark.parametrize(
    ("path", "roots", "bind"),
    [
        ("/models/hub/x/snapshot", ("/models", "/models/hub"), "/models/hub"),
        ("/models/x", ("/models", "/models/hub"), "/models"),
        ("/models2/x", ("/models",), "/models2/x"),
        ("/x", ("/",), "/x"),
        ("/x", None, "/x"),
    ],
)
def test_a_model_is_mounted_with_what_its_links_may_point_to(
    path: str, roots: tuple[str, ...] | None, bind: str
) -> None:
    engine = dataclasses.replace(PLAIN, container="apptainer", gpu="nvidia")
    site = dataclasses.replace(SITE, allowed=Allowed(model_roots=roots))
    template = dataclasses.replace(TEMPLATE, model_uri=f"file://{path}", image="/i.sif", gpus=1)

    assert {
        "kind": "apptainer",
        "image": "/i.sif",
        "gpu": "nvidia",
        "binds": [f"{bind}:{bind}:ro"],
    } == command(template, engine, site).container


def test_without_gpus_a_container_gets_to_see_none() -> None:
    engine = dataclasses.replace(PLAIN, container="apptainer", gpu="nvidia", image="/own.sif")

    assert {"kind": "apptainer", "image": "/own.sif", "gpu": "none", "binds": []} == command(
        TEMPLATE, engine
    ).container


def test_a_runtime_without_containers_ignores_images() -> None:
    assert {"kind": "none"} == command(dataclasses.replace(TEMPLATE, image="/i.sif")).container


def test_the_warm_up_speaks_of_the_model_as_the_engine_knows_it() -> None:
    body: dict[str, Any] = {"model": "{servedName}", "n": [1, None, {"x": "{{}}"}]}
    engine = dataclasses.replace(PLAIN, warmup=Warmup(path="/w", body=body))

    def rendered(of: Runtime) -> object:
        warmup = command(dataclasses.replace(TEMPLATE, model_name="a{b"), of).warmup
        assert warmup is not None
        return warmup["body"]

    assert {"model": "a{b", "n": [1, None, {"x": "{}"}]} == rendered(engine)
    assert {"model": "tgi", "n": [1, None, {"x": "{}"}]} == rendered(
        dataclasses.replace(engine, served_name="tgi")
    )


def _program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o700)


def _key(folder: Path) -> Path:
    key = folder / "key"
    key.write_text("secret\n")
    key.chmod(0o600)
    return key
