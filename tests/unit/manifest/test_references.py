"""What a deployment may say about its runtime, profile and cluster."""

import dataclasses
from typing import Any

import pytest

from llmop.domain.deployment import Deployment, DeploymentSpec, SlurmOptions, Template
from llmop.domain.profile import Profile
from llmop.domain.runtime import Runtime
from llmop.domain.site import Allowed, DriverKind, Site
from llmop.manifest import references

FREE = Runtime(name="free", engine="e", command=("run",), model_required=False, container="optional")
GGUF = Runtime(name="gguf", engine="e", command=("run",), model_formats=("gguf",))
BOXED = Runtime(
    name="boxed", engine="e", command=("run",), container="apptainer", model_formats=("directory",)
)
CPU = Profile(name="cpu")
A100 = Profile(name="a100", gres="gpu:a100", gpus_per_node=4, max_replicas=8, time_limit_s=7200)
FAR = Profile(name="far", cluster="far")
SITE = Site(name="default", driver=DriverKind.SLURM, shared_dir="/shared")


def check(*, site: Site = SITE, replicas: int = 1, **template: Any) -> dict[str, tuple[str, str]]:
    given = {"model_uri": "", "model_name": "m", "runtime": "free", "profile": "cpu", **template}
    deployment = Deployment(
        name="x",
        namespace="default",
        uid="",
        generation=1,
        resource_version=1,
        created_at=0.0,
        deleted_at=None,
        spec=DeploymentSpec(template=Template(**given), replicas=replicas),
    )
    found = references.check(
        deployment,
        runtimes={each.name: each for each in (FREE, GGUF, BOXED)},
        profiles={each.name: each for each in (CPU, A100, FAR)},
        sites={site.name: site},
    )
    return {each.path: (each.reason, each.message) for each in found}


def allowing(**allowed: Any) -> Site:
    return dataclasses.replace(SITE, allowed=Allowed(**allowed))


@pytest.mark.parametrize(
    "template",
    [
        {},
        {"profile": "a100", "gpus": 4},
        {"profile": ""},
        {"runtime": "gguf", "model_uri": "file:///m/x.GGUF"},
        {"runtime": "boxed", "model_uri": "file:///m/x", "image": "/i.sif"},
        {"image": "/i.sif"},
        {"cluster": "default"},
        {"profile": "", "gpus": 2, "slurm": SlurmOptions(gres="gpu:2")},
    ],
)
def test_what_fits_is_let_through(template: dict[str, Any]) -> None:
    assert {} == check(**template)


def test_names_that_do_not_exist_are_told_with_what_was_meant() -> None:
    assert {
        "spec.runtime": ("NotFound", 'there is no ServingRuntime "boxd"; did you mean "boxed"?'),
        "spec.resourceProfile": ("NotFound", 'there is no ResourceProfile "a10"; did you mean "a100"?'),
    } == check(runtime="boxd", profile="a10", gpus=1)
    assert {
        "spec.cluster": ("NotFound", 'there is no Cluster "defualt"; did you mean "default"?'),
    } == check(profile="", cluster="defualt")
    assert {
        "spec.resourceProfile": ("NotFound", 'there is no Cluster "far"; known: default'),
    } == check(profile="far")


@pytest.mark.parametrize(
    ("profile", "gpus", "message"),
    [
        ("a100", 0, "'a100' names no GPUs; write a100:1, or more per replica"),
        ("cpu", 1, "'cpu:1' asks for GPUs, and this profile has none; write cpu"),
        ("a100", 5, "'a100:5' asks for more GPUs than one node of this profile has; write a100:4 or less"),
    ],
)
def test_the_gpus_fit_the_profile(profile: str, gpus: int, message: str) -> None:
    assert {"spec.resourceProfile": ("InvalidValue", message)} == check(profile=profile, gpus=gpus)


def test_limits_of_the_profile_hold() -> None:
    assert {
        "spec.replicas": ("InvalidValue", "9 is more than the profile a100 allows; write 8 or less")
    } == check(profile="a100", gpus=1, replicas=9)
    assert ["spec.slurm.timeMin"] == list(check(profile="a100", gpus=1, slurm=SlurmOptions(time_min_s=7201)))
    assert ["spec.slurm.gres"] == list(check(slurm=SlurmOptions(gres="gpu:1")))


def test_a_cluster_other_than_the_profiles_is_refused() -> None:
    other = dataclasses.replace(SITE, name="other")

    message = "'other' is not the cluster of the profile cpu, which is 'default'; leave cluster out, or take another profile"
    assert {"spec.cluster": ("InvalidValue", message)} == check(cluster="other", site=other)


def test_the_runtime_gets_the_model_it_needs() -> None:
    assert {
        "spec.model.uri": (
            "Required",
            "the runtime gguf needs a model; write hf://organisation/name or file:///absolute/path",
        )
    } == check(runtime="gguf")
    assert {
        "spec.model.uri": ("InvalidValue", "'file:///m/x': the runtime gguf needs a .gguf file")
    } == check(runtime="gguf", model_uri="file:///m/x")
    assert {
        "spec.model.uri": ("InvalidValue", "'file:///m/x.gguf': the runtime boxed needs a directory")
    } == check(runtime="boxed", model_uri="file:///m/x.gguf", image="/i.sif")


def test_weights_of_a_hub_have_the_form_that_the_runtime_takes() -> None:
    assert {} == check(runtime="gguf", model_uri="hf://a/b/c.gguf")
    assert {
        "spec.model.uri": (
            "InvalidValue",
            "'hf://a/b': the runtime gguf needs one file of it; write hf://organisation/name/file.gguf",
        )
    } == check(runtime="gguf", model_uri="hf://a/b")
    assert {} == check(runtime="boxed", model_uri="hf://a/b", image="docker://ghcr.io/a/b:1")
    assert ["spec.model.uri"] == list(check(runtime="boxed", model_uri="hf://a/b/c.gguf", image="/i.sif"))


def test_images_are_where_containers_are() -> None:
    assert (
        "Required",
        "the runtime boxed runs in a container; write docker://registry/name:tag or the absolute path of a .sif",
    ) == check(runtime="boxed", model_uri="file:///m/x")["spec.image"]
    assert ("InvalidValue", "'/i.sif': the runtime gguf runs without a container; remove it") == check(
        runtime="gguf", model_uri="file:///m/x.gguf", image="/i.sif"
    )["spec.image"]


def test_a_models_path_can_be_mounted_where_there_is_a_container() -> None:
    assert ["spec.model.uri"] == list(check(model_uri="file:///m/a:b", image="/i.sif"))
    assert [] == list(check(model_uri="file:///m/a:b"))


def test_the_admin_narrows_what_may_be_named() -> None:
    narrow = allowing(
        images=("/images",), model_roots=("/models",), args=("--ok",), extra_args=("--exclusive",)
    )

    assert {
        "spec.image": (
            "Forbidden",
            "'/other/i.sif' is not allowed on the cluster default; allowed images: /images",
        ),
        "spec.model.uri": (
            "Forbidden",
            "'file:///models2/x' is not allowed on the cluster default; allowed models below: /models",
        ),
        "spec.envFrom": (
            "Forbidden",
            "the cluster default has no secretRoot; set spec.allowed.secretRoot of the Cluster, or remove envFrom",
        ),
        "spec.args[1]": ("Forbidden", "'--bad=1' is not allowed on the cluster default; allowed flags: --ok"),
        "spec.slurm.extraArgs[1]": (
            "Forbidden",
            "'--licenses=x' is not allowed on the cluster default; allowed options: --exclusive",
        ),
    } == check(
        site=narrow,
        image="/other/i.sif",
        model_uri="file:///models2/x",
        env_files=("hf.env",),
        args=("--ok=1", "--bad=1", "value"),
        slurm=SlurmOptions(extra_args=("--exclusive", "--licenses=x")),
    )


def test_what_lies_below_an_allowed_place_is_allowed() -> None:
    narrow = allowing(images=("/images/",), model_roots=("/", "/models"), secret_root="/secrets", args=())

    assert {} == check(site=narrow, image="/images/a/i.sif", model_uri="file:///models/x", env_files=("a",))


@pytest.mark.parametrize(
    ("image", "is_allowed"),
    [
        ("docker://ghcr.io/team/engine:1.0", True),
        ("docker://ghcr.io/team/engine@sha256:" + 64 * "a", True),
        ("docker://ghcr.io/team2/engine", False),
        ("docker://evil.org/ghcr.io/team/engine", False),
        ("oras://ghcr.io/team/engine:1.0", False),
        ("docker://ubuntu:22.04", True),
        ("docker://docker.io/library/ubuntu", True),
        ("docker://ubuntu2", False),
        ("/images/i.sif", True),
        ("/images2/i.sif", False),
    ],
)
def test_images_of_registries_are_allowed_by_whole_names(image: str, is_allowed: bool) -> None:
    narrow = allowing(images=("docker://ghcr.io/team", "docker://ubuntu", "/images"))

    assert is_allowed == ({} == check(site=narrow, image=image))


def test_weights_of_a_hub_are_allowed_by_whole_names() -> None:
    narrow = allowing(model_roots=("hf://team", "/models"))

    assert {} == check(site=narrow, model_uri="hf://team/x")
    assert {} == check(site=narrow, model_uri="file:///models/x")
    assert ["spec.model.uri"] == list(check(site=narrow, model_uri="hf://team2/x"))
    assert ["spec.model.uri"] == list(check(site=allowing(model_roots=("/",)), model_uri="hf://team/x"))
    assert {} == check(site=allowing(model_roots=("hf://",)), model_uri="hf://team/x")


def test_an_empty_list_allows_nothing() -> None:
    assert {"spec.image", "spec.model.uri"} == set(
        check(site=allowing(images=(), model_roots=()), image="/i.sif", model_uri="file:///x")
    )


def test_options_of_slurm_have_no_meaning_without_slurm() -> None:
    local = dataclasses.replace(SITE, driver=DriverKind.LOCAL)

    assert {
        "spec.slurm": ("InvalidValue", "the cluster default has no Slurm (driver local); remove it")
    } == check(site=local, slurm=SlurmOptions(partition="gpu"))


SPREADING = dataclasses.replace(
    FREE,
    command=("run", "--tp={tensorParallel}", "--pp", "{pipelineParallel}", "--most={maxTokens}"),
    gpu="nvidia",
)
ONE_GPU = dataclasses.replace(FREE, gpu="nvidia")


def check_with(runtime: Runtime, **template: Any) -> dict[str, tuple[str, str]]:
    given = {"model_uri": "", "model_name": "m", "runtime": "free", "profile": "a100", "gpus": 1, **template}
    deployment = Deployment(
        name="x",
        namespace="default",
        uid="",
        generation=1,
        resource_version=1,
        created_at=0.0,
        deleted_at=None,
        spec=DeploymentSpec(template=Template(**given)),
    )
    found = references.check(deployment, {"free": runtime}, {"a100": A100, "cpu": CPU}, {"default": SITE})
    return {each.path: (each.reason, each.message) for each in found}


@pytest.mark.parametrize(
    "template",
    [
        {"gpus": 4},
        {"gpus": 4, "tensor": 4},
        {"gpus": 4, "pipeline": 2},
        {"gpus": 4, "tensor": 2, "pipeline": 2},
        {"max_tokens": 9},
        {"profile": "cpu", "gpus": 0},
        {"profile": "cpu", "gpus": 0, "tensor": 1},
        {"args": ("--most=9", "--other", "4")},
    ],
)
def test_an_engine_may_be_asked_for_what_it_can_do(template: dict[str, Any]) -> None:
    assert {} == check_with(SPREADING, **template)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            {"gpus": 4, "tensor": 3},
            "tensor 3 x pipeline 1 is 3, and the replica has 4 GPUs; the two must agree",
        ),
        (
            {"gpus": 4, "pipeline": 3},
            "tensor 1 x pipeline 3 is 3, and the replica has 4 GPUs; the two must agree",
        ),
        (
            {"profile": "cpu", "gpus": 0, "tensor": 2},
            "tensor 2 x pipeline 1 is 2, and the replica has 0 GPUs; the two must agree",
        ),
    ],
)
def test_the_gpus_are_as_many_as_the_engine_spreads_over(template: dict[str, Any], message: str) -> None:
    assert {"spec.parallelism": ("InvalidValue", message)} == check_with(SPREADING, **template)


def test_what_an_engine_cannot_do_is_refused_at_apply() -> None:
    assert {
        "spec.parallelism.pipeline": (
            "InvalidValue",
            "2: the runtime free has no pipeline parallelism; remove it",
        ),
        "spec.resourceProfile": (
            "InvalidValue",
            "'a100:2': the runtime free uses one GPU; write a100:1 and more replicas",
        ),
        "spec.model.maxTokens": ("InvalidValue", "9: the runtime free does not pass it on; remove it"),
    } == check_with(ONE_GPU, gpus=2, pipeline=2, max_tokens=9)


def test_an_engine_that_is_shown_no_gpus_may_have_as_many_as_it_likes() -> None:
    assert {} == check_with(FREE, gpus=4)


def test_arguments_do_not_take_over_what_the_runtime_sets() -> None:
    runtime = dataclasses.replace(
        SPREADING, refused_args={"--nnodes": "is for several nodes", "-n": "is for several nodes"}
    )

    def messages(*args: str, **template: Any) -> dict[str, str]:
        return {path: message for path, (_, message) in check_with(runtime, args=args, **template).items()}

    assert {
        "spec.args[0]": "'--nnodes=2': --nnodes is for several nodes; remove it",
        "spec.args[1]": "'-n': -n is for several nodes; remove it",
        "spec.args[3]": "'--tp=2': --tp is set by the runtime free; remove it",
        "spec.args[4]": "'--pp': --pp is set by the runtime free; remove it",
    } == messages("--nnodes=2", "-n", "2", "--tp=2", "--pp", "2", "--most=3")
    assert {"spec.args[0]": "'--most=3': --most is set by the runtime free; remove it"} == messages(
        "--most=3", max_tokens=4
    )
