"""The engine part of replica.json: whole command lines against tests/golden/runtimes, and values that must arrive verbatim."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
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
    "llamacpp-embeddings": Template(
        model_uri="file:///models/minilm.gguf", model_name="minilm", runtime="llamacpp-embeddings"
    ),
    "tgi": Template(
        max_tokens=8192,
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
    "vllm": Template(
        model_uri="file:///models/hub/Llama-3.3-70B-Instruct",
        model_name="meta-llama/Llama-3.3-70B-Instruct",
        max_tokens=16384,
        runtime="vllm",
        image="/images/vllm.sif",
        args=("--max-num-seqs=256",),
        profile="a100",
        gpus=8,
        pipeline=2,
    ),
    "sglang": Template(
        model_uri="file:///models/Qwen3-32B",
        model_name="Qwen/Qwen3-32B",
        runtime="sglang",
        image="/images/sglang.sif",
        profile="a100",
        gpus=2,
    ),
    "tei": Template(
        model_uri="file:///models/bge-m3",
        model_name="BAAI/bge-m3",
        runtime="tei",
        image="/images/tei.sif",
        profile="a100",
        gpus=1,
    ),
    "tei-on-cpus": Template(
        model_uri="file:///models/bge-m3", model_name="bge", runtime="tei", image="/images/tei-cpu.sif"
    ),
}
# What a user may write, in every place where he may write it: it must arrive as it stands, each as one argument.
HOSTILE_TEMPLATE = Template(
    model_uri='file:///models/$(id) `id`/it\'s "a" {port} --flag',
    model_name="a/b:c@d+e_f.g-h",
    runtime="",
    image="/images/i.sif",
    args=("--x={apiKeyFile}", "; rm -rf /", "$(id)", "two\nlines", "", "--"),
    env={"A": "{scratch} $HOME `id`", "B": ""},
    profile="a100",
    gpus=1,
)
HOSTILE_RUNTIMES = ("sglang", "tei", "tgi", "vllm")
CASES |= {f"{name}-hostile": dataclasses.replace(HOSTILE_TEMPLATE, runtime=name) for name in HOSTILE_RUNTIMES}


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
    "port:nccl": "40004",
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

    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / f"{name}.json").write_text(rendered, encoding="utf-8")
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


@pytest.mark.parametrize("name", HOSTILE_RUNTIMES)
def test_hostile_values_reach_a_built_in_engine_as_they_stand(name: str) -> None:
    result = command(CASES[f"{name}-hostile"], runtime(name))

    argv = [on_the_node(text, NODE) for text in result.argv]

    assert list(HOSTILE_TEMPLATE.args) == argv[-len(HOSTILE_TEMPLATE.args) :]
    path = HOSTILE_TEMPLATE.model_uri.removeprefix("file://")
    assert 1 == sum(text in (path, f"--model-id={path}", f"--model-path={path}") for text in argv)
    served = "" if name == "tgi" else f"--served-model-name={HOSTILE_TEMPLATE.model_name}"
    assert not served or 1 == argv.count(served)
    assert (
        HOSTILE_TEMPLATE.env.items()
        <= {key: on_the_node(value, NODE) for key, value in result.env.items()}.items()
    )


def test_the_gpus_are_spread_as_the_deployment_says() -> None:
    engine = dataclasses.replace(PLAIN, command=("{tensorParallel}x{pipelineParallel}",))

    def spread(**values: int) -> str:
        return command(dataclasses.replace(TEMPLATE, **values), engine).argv[0]

    assert ("1x1", "4x1", "4x2", "2x1") == (
        spread(),
        spread(gpus=4),
        spread(gpus=8, pipeline=2),
        spread(gpus=4, tensor=2),
    )


def test_what_the_deployment_does_not_limit_is_left_to_the_engine() -> None:
    engine = dataclasses.replace(
        PLAIN, command=("run", "--most={maxTokens}", "{port}"), env={"MOST": "{maxTokens}", "A": "a"}
    )

    free, limited = command(TEMPLATE, engine), command(dataclasses.replace(TEMPLATE, max_tokens=9), engine)

    assert (("run", "{port}"), {"A": "a"}) == (free.argv, free.env)
    assert (("run", "--most=9", "{port}"), {"MOST": "9", "A": "a"}) == (limited.argv, limited.env)


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


@pytest.mark.parametrize(
    ("made_for", "vendor", "shown"),
    [
        ("nvidia", "", "nvidia"),
        ("nvidia", "amd", "amd"),
        ("amd", "nvidia", "nvidia"),
        ("none", "amd", "none"),
    ],
)
def test_the_profile_says_whose_gpus_they_are(made_for: str, vendor: str, shown: str) -> None:
    engine = dataclasses.replace(PLAIN, container="apptainer", gpu=made_for, image="/own.sif")
    profile = dataclasses.replace(PROFILE, gpu_vendor=vendor)
    template = dataclasses.replace(TEMPLATE, gpus=1)
    assert shown == render.engine_command(engine, template, profile, SITE).container["gpu"]


@pytest.mark.parametrize("file", ["", "/x-00001-of-00002.gguf"])
def test_of_staged_weights_the_whole_directory_is_mounted(file: str) -> None:
    engine = dataclasses.replace(PLAIN, container="apptainer")
    template = dataclasses.replace(
        TEMPLATE, model_uri=f"file:///shared/llmop/models/0a{file}", image="/shared/llmop/images/0b.sif"
    )

    assert ["/shared/llmop/models/0a:/shared/llmop/models/0a:ro"] == command(
        template, engine, dataclasses.replace(SITE, allowed=Allowed(model_roots=("hf://team",)))
    ).container["binds"]


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


def _key(folder: Path) -> Path:
    key = folder / "key"
    key.write_text("secret\n")
    key.chmod(0o600)
    return key
