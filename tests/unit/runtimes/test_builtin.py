"""The manifests that ship with llmop: all of them load, fit together, and say nothing that is refused."""

import re
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
NAMES = ["llamacpp-embeddings", "llamacpp", "sglang", "simulator", "tei", "tgi", "vllm"]
A100 = Profile(name="a100", gres="gpu:a100", gpus_per_node=8)
FLAGS = Path(__file__).parents[2] / "data" / "engines"
DOCS = Path(__file__).parents[3] / "docs"

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
    known = known_flags(engine)
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


def known_flags(engine: str) -> set[str]:
    text = (FLAGS / f"{engine}.flags").read_text(encoding="utf-8")
    return {line for line in text.splitlines() if not line.startswith("#")}


def test_the_page_of_runtimes_has_a_section_for_each_and_names_flags_that_exist() -> None:
    page = (DOCS / "reference" / "runtimes.md").read_text(encoding="utf-8")
    sections = {text.partition("\n")[0]: text for text in page.split("\n## ")[1:]}

    assert set(NAMES) <= set(sections)
    for engine in ("sglang", "tei", "tgi", "vllm"):
        named = set(re.findall(r"`(--[a-z0-9-]+)", sections[engine]))
        assert set() == named - known_flags(engine)


def test_the_smoke_tests_look_for_flags_that_the_runtimes_give() -> None:
    page = (DOCS / "howto" / "check-engines-on-gpus.md").read_text(encoding="utf-8")
    looked_for = {
        engine: {f"--{name}" for name in names.split("|")}
        for engine, names in re.findall(r"apptainer exec (\w+)\.sif .*'--\(([a-z|-]+)\)'", page)
    }

    assert {"sglang", "tei", "tgi", "vllm"} == set(looked_for)
    for engine, flags in looked_for.items():
        given = builtin.runtimes()[f"{engine}.yaml"]
        assert set() == {flag for flag in flags if f"- {flag}" not in given}
