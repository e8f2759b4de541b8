"""The manifests that ship with llmop: all of them load, fit together, and say nothing that is refused."""

from pathlib import Path

import pytest

from llmop.domain import resources
from llmop.domain.profile import Profile
from llmop.domain.resources import Resource
from llmop.domain.site import DriverKind, Site
from llmop.manifest import admit, convert, load, references
from llmop.runtimes import builtin

MANIFESTS = Path(__file__).parents[3] / "manifests"
MODELS = sorted((MANIFESTS / "models").glob("*.yaml"))
NAMES = ["llamacpp", "sglang", "simulator", "tei", "tgi", "vllm"]
A100 = Profile(name="a100", gres="gpu:a100", gpus_per_node=8)
FLAGS = Path(__file__).parents[2] / "data" / "engines"

# What is for the shell or Python that starts the engine, and an abbreviation that SGLang's argparse takes.
SHELL = {"-euc", "-c", "--tp", "--pp", "--dp"}


def admitted(texts: dict[str, str]) -> list[Resource]:
    return [
        admit.admit(document.data, namespace="")
        for name, text in texts.items()
        for document in load.load(text, name)
    ]


def test_the_runtimes_are_named_like_their_files() -> None:
    found = admitted(builtin.runtimes())

    assert NAMES == [each.name for each in found]
    assert {resources.SERVING_RUNTIME} == {each.kind for each in found}
    assert [f"{name}.yaml" for name in NAMES] == list(builtin.runtimes())


def test_the_profile_without_gpus_exists_without_setup() -> None:
    assert [Profile(name="cpu")] == [convert.profile(each) for each in admitted(builtin.profiles())]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_an_example_can_be_applied(path: Path) -> None:
    deployments = [
        convert.deployment(each) for each in admitted({path.name: path.read_text(encoding="utf-8")})
    ]
    runtimes = {each.name: convert.runtime(each) for each in admitted(builtin.runtimes())}
    profiles = {each.name: convert.profile(each) for each in admitted(builtin.profiles())} | {"a100": A100}
    site = Site(name="default", driver=DriverKind.SLURM, shared_dir="/shared")

    assert deployments
    for deployment in deployments:
        assert () == references.check(deployment, runtimes, profiles, {"default": site})


@pytest.mark.parametrize("engine", ["sglang", "tei", "tgi", "vllm"])
def test_an_engine_knows_every_flag_that_its_runtime_and_the_examples_give_it(engine: str) -> None:
    """The lists were read from the engines' own sources, which their first lines name."""
    known = {
        line
        for line in (FLAGS / f"{engine}.flags").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    }
    (runtime,) = [convert.runtime(each) for each in admitted({engine: builtin.runtimes()[f"{engine}.yaml"]})]
    examples = [
        convert.deployment(each).spec.template
        for path in MODELS
        for each in admitted({path.name: path.read_text(encoding="utf-8")})
    ]
    given = [
        *runtime.command,
        *runtime.args,
        *runtime.refused_args,
        *(argument for each in examples if each.runtime == engine for argument in each.args),
    ]
    flags = {text.partition("=")[0] for text in given if text.startswith("-")} - SHELL

    assert flags
    assert set() == flags - known
