"""What one object may say about others: does the runtime exist, do the GPUs fit, does the Cluster allow it?"""

import dataclasses
import posixpath
from collections.abc import Iterator, Mapping, Sequence

from llmop.domain import artifact
from llmop.domain.assistant import Assistant
from llmop.domain.deployment import Deployment, SlurmOptions, Template
from llmop.domain.errors import Violation
from llmop.domain.profile import Profile
from llmop.domain.runtime import Runtime
from llmop.domain.site import DriverKind, Site
from llmop.domain.tribunal import Tribunal
from llmop.manifest import suggest

DEFAULT_CLUSTER = "default"

_BIND_MARKS = frozenset(":,\\")  # apptainer's --bind splits at them
# The flags that fill these say where and what the engine serves; with another value the agent, the gateway or Slurm would be wrong.
_FIXED = frozenset(
    {"port", "host", "apiKeyFile", "model", "servedName", "tensorParallel", "pipelineParallel"}
)
_FORMATS = {"gguf": "a .gguf file", "directory": "a directory"}


def check(
    deployment: Deployment,
    runtimes: Mapping[str, Runtime],
    profiles: Mapping[str, Profile],
    sites: Mapping[str, Site],
) -> tuple[Violation, ...]:
    """Every rule between `deployment` and the other objects, by name, that is broken; () if it can be run as it stands."""
    template = deployment.spec.template
    runtime = runtimes.get(template.runtime)
    profile = profiles.get(template.profile)
    site = sites.get(cluster_of(template, profile))
    return (
        *_existence(template, runtimes, profiles, sites),
        *(_profile(deployment, profile) if profile is not None else ()),
        *(_runtime(template, runtime) if runtime is not None else ()),
        *(_abilities(template, runtime) if runtime is not None else ()),
        *(_site(template, site) if site is not None else ()),
    )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """A model as clients name it, of a ModelDeployment of this name. `protocols` None = its runtime is not there."""

    model: str
    deployment: str
    protocols: tuple[str, ...] | None


def check_tribunal(
    tribunal: Tribunal, served: Sequence[Served], others: Sequence[Tribunal | Assistant]
) -> tuple[Violation, ...]:
    """Every rule between `tribunal` and the other objects that is broken. `others` are the other models without replicas."""
    return _virtual(tribunal, tuple(_members(tribunal)), served, others)


def check_assistant(
    assistant: Assistant, served: Sequence[Served], others: Sequence[Tribunal | Assistant]
) -> tuple[Violation, ...]:
    """The same for `assistant`. What vector stores there are is not known here."""
    return _virtual(assistant, (("spec.model", assistant.model),), served, others)


def _virtual(
    own: Tribunal | Assistant,
    members: Sequence[tuple[str, str]],
    served: Sequence[Served],
    others: Sequence[Tribunal | Assistant],
) -> tuple[Violation, ...]:
    models = {each.model: each for each in served}
    virtual = {each.name: _word(each) for each in others if each.name not in models}
    virtual[own.name] = f"this {type(own).__name__.lower()} itself"
    found = [
        problem for path, model in members for problem in _member(path, model, _word(own), models, virtual)
    ]
    users = sorted(
        {f"{type(each).__name__.lower()} {each.name}" for each in others if own.name in each.models}
    )
    if users and own.name not in models:
        message = (
            f"{own.name!r} is a member of the {', '.join(users)}, and {_word(own)} cannot be one;"
            " give this one another name"
        )
        found.append(Violation(path="metadata.name", reason="Forbidden", message=message))
    return tuple(found)


def _word(virtual: Tribunal | Assistant) -> str:
    return "a tribunal" if isinstance(virtual, Tribunal) else "an assistant"


def _members(tribunal: Tribunal) -> Iterator[tuple[str, str]]:
    """Each model with the path of its field."""
    for number, drafter in enumerate(tribunal.drafters):
        yield f"spec.drafters[{number}].model", drafter.model
    for number, critic in enumerate(tribunal.critics):
        yield f"spec.critics[{number}].model", critic.model
    yield "spec.judge.model", tribunal.judge.model


def _member(
    path: str, model: str, word: str, models: Mapping[str, Served], virtual: Mapping[str, str]
) -> Iterator[Violation]:
    """`word` is what asks; `virtual` says what the models without replicas are."""
    if model in virtual:
        message = f"{model!r} is {virtual[model]}, which {word} cannot ask; name the model of a deployment"
        yield Violation(path=path, reason="Forbidden", message=message)
        return
    found = models.get(model)
    if found is not None:
        if found.protocols is not None and "openai" not in found.protocols:
            yield _invalid(path, f"{model!r} does not speak openai, which {word} asks in; name another model")
        return
    renamed = next((each.model for each in models.values() if each.deployment == model), None)
    if renamed is not None:
        yield _invalid(path, f"the ModelDeployment {model!r} serves the model {renamed!r}; write {renamed}")
        return
    hint = suggest.hint(model, models) or "; apply it first"
    message = f'there is no ModelDeployment "{model}", and none that serves a model of this name{hint}'
    yield Violation(path=path, reason="NotFound", message=message)


def cluster_of(template: Template, profile: Profile | None) -> str:
    """The name of the Cluster that runs `template`: its own word, else its profile's, else the default."""
    return template.cluster or (profile.cluster if profile is not None else "") or DEFAULT_CLUSTER


def _found(path: str, value: str, kind: str, known: Mapping[str, object]) -> Iterator[Violation]:
    if value and value not in known:
        hint = suggest.hint(value, known) or f"; apply a {kind} of this name first"
        yield Violation(path=path, reason="NotFound", message=f'there is no {kind} "{value}"{hint}')


def _existence(
    template: Template,
    runtimes: Mapping[str, Runtime],
    profiles: Mapping[str, Profile],
    sites: Mapping[str, Site],
) -> Iterator[Violation]:
    yield from _found("spec.runtime", template.runtime, "ServingRuntime", runtimes)
    yield from _found("spec.resourceProfile", template.profile, "ResourceProfile", profiles)
    if template.profile and template.profile not in profiles:
        return  # which cluster is meant is not known
    profile = profiles.get(template.profile)
    path = "spec.resourceProfile" if profile is not None and not template.cluster else "spec.cluster"
    yield from _found(path, cluster_of(template, profile), "Cluster", sites)


def _profile(deployment: Deployment, profile: Profile) -> Iterator[Violation]:
    template = deployment.spec.template
    path = "spec.resourceProfile"
    written = f"{template.profile}:{template.gpus}" if template.gpus else template.profile
    if profile.gres and not template.gpus:
        yield _invalid(path, f"'{written}' names no GPUs; write {profile.name}:1, or more per replica")
    if not profile.gres and template.gpus:
        yield _invalid(path, f"'{written}' asks for GPUs, and this profile has none; write {profile.name}")
    if profile.gpus_per_node and template.gpus > profile.gpus_per_node:
        yield _invalid(
            path,
            f"'{written}' asks for more GPUs than one node of this profile has;"
            f" write {profile.name}:{profile.gpus_per_node} or less",
        )
    if not profile.gres and template.slurm.gres:
        yield _invalid(
            "spec.slurm.gres",
            f"{template.slurm.gres!r} asks for GPUs, and the profile {profile.name} has none; remove one of the two",
        )
    if template.cluster and template.cluster != profile.cluster:
        yield _invalid(
            "spec.cluster",
            f"{template.cluster!r} is not the cluster of the profile {profile.name}, which is {profile.cluster!r};"
            " leave cluster out, or take another profile",
        )
    scaled = deployment.spec.scaling
    most = scaled.max_replicas if scaled is not None else deployment.spec.replicas
    if profile.max_replicas and most > profile.max_replicas:
        yield _invalid(
            "spec.scaling.maxReplicas" if scaled is not None else "spec.replicas",
            f"{most} is more than the profile {profile.name} allows; write {profile.max_replicas} or less",
        )
    limit = template.slurm.time_limit_s or profile.time_limit_s
    least = template.slurm.time_min_s or profile.time_min_s
    if limit and least > limit:
        field = "timeMin" if template.slurm.time_min_s else "timeLimit"
        yield _invalid(
            f"spec.slurm.{field}",
            f"together with the profile {profile.name} timeMin is {least}s and timeLimit {limit}s;"
            " timeMin must not be longer",
        )


def _runtime(template: Template, runtime: Runtime) -> Iterator[Violation]:
    if runtime.model_required and not template.model_uri:
        yield Violation(
            path="spec.model.uri",
            reason="Required",
            message=f"the runtime {runtime.name} needs a model; write hf://organisation/name or file:///absolute/path",
        )
    if (
        template.model_uri
        and runtime.model_formats
        and not _has_format(template.model_uri, runtime.model_formats)
    ):
        yield _invalid(
            "spec.model.uri",
            f"{template.model_uri!r}: the runtime {runtime.name} needs {_formats(template.model_uri, runtime)}",
        )
    image = template.image or runtime.image
    if runtime.container == "apptainer" and not image:
        yield Violation(
            path="spec.image",
            reason="Required",
            message=f"the runtime {runtime.name} runs in a container; write docker://registry/name:tag or the absolute path of a .sif",
        )
    if runtime.container == "none" and template.image:
        yield _invalid(
            "spec.image",
            f"{template.image!r}: the runtime {runtime.name} runs without a container; remove it",
        )
    path = (
        "" if artifact.is_model_reference(template.model_uri) else template.model_uri.removeprefix("file://")
    )
    marks = sorted(_BIND_MARKS & set(path))
    if image and runtime.container != "none" and marks:
        yield _invalid(
            "spec.model.uri",
            f"{template.model_uri!r} has {' '.join(marks)} in it, which a container's bind path cannot have",
        )


def _abilities(template: Template, runtime: Runtime) -> Iterator[Violation]:
    """What the engine is asked for and cannot do."""
    gpus = max(template.gpus, 1)
    spread = template.tensor_parallel * template.pipeline
    if spread != gpus:
        yield _invalid(
            "spec.parallelism",
            f"tensor {template.tensor_parallel} x pipeline {template.pipeline} is {spread},"
            f" and the replica has {template.gpus} GPUs; the two must agree",
        )
    if template.pipeline > 1 and not runtime.uses("pipelineParallel"):
        yield _invalid(
            "spec.parallelism.pipeline",
            f"{template.pipeline}: the runtime {runtime.name} has no pipeline parallelism; remove it",
        )
    # A runtime that shows its engine GPUs and does not say over how many it spreads would leave all but one idle.
    if gpus > 1 and runtime.gpu != "none" and not runtime.uses("tensorParallel"):
        yield _invalid(
            "spec.resourceProfile",
            f"'{template.profile}:{gpus}': the runtime {runtime.name} uses one GPU; write {template.profile}:1 and more replicas",
        )
    if template.max_tokens and not runtime.uses("maxTokens"):
        yield _invalid(
            "spec.model.maxTokens",
            f"{template.max_tokens}: the runtime {runtime.name} does not pass it on; remove it",
        )
    fixed = runtime.flags_with(_FIXED | {"maxTokens"} if template.max_tokens else _FIXED)
    for index, argument in enumerate(template.args):
        flag = argument.partition("=")[0].replace("_", "-")  # Python's engines take both spellings
        if flag in runtime.refused_args:
            yield _invalid(
                f"spec.args[{index}]", f"{argument!r}: {flag} {runtime.refused_args[flag]}; remove it"
            )
        elif flag in fixed:
            yield _invalid(
                f"spec.args[{index}]", f"{argument!r}: {flag} is set by the runtime {runtime.name}; remove it"
            )


def _formats(uri: str, runtime: Runtime) -> str:
    if artifact.is_model_reference(uri) and runtime.model_formats == ("gguf",):
        return "one file of it; write hf://organisation/name/file.gguf"
    return " or ".join(_FORMATS[each] for each in runtime.model_formats)


def _has_format(uri: str, formats: tuple[str, ...]) -> bool:
    is_gguf = uri.lower().endswith(".gguf")
    return ("gguf" in formats and is_gguf) or ("directory" in formats and not is_gguf)


def _site(template: Template, site: Site) -> Iterator[Violation]:
    allowed = site.allowed
    if template.image and allowed.images is not None and not _is_allowed(template.image, allowed.images):
        yield _forbidden("spec.image", template.image, site, "images", allowed.images)
    if (
        template.model_uri
        and allowed.model_roots is not None
        and not _is_allowed(template.model_uri, allowed.model_roots)
    ):
        yield _forbidden("spec.model.uri", template.model_uri, site, "models below", allowed.model_roots)
    if template.env_files and not allowed.secret_root:
        yield Violation(
            path="spec.envFrom",
            reason="Forbidden",
            message=f"the cluster {site.name} has no secretRoot; set spec.allowed.secretRoot of the Cluster, or remove envFrom",
        )
    if site.driver is DriverKind.LOCAL and template.slurm != SlurmOptions():
        yield _invalid("spec.slurm", f"the cluster {site.name} has no Slurm (driver local); remove it")
    for index, argument in enumerate(template.args):
        flag = argument.partition("=")[0]
        if allowed.args is not None and argument.startswith("-") and flag not in allowed.args:
            yield _forbidden(f"spec.args[{index}]", argument, site, "flags", allowed.args)
    for index, argument in enumerate(template.slurm.extra_args):
        if argument.partition("=")[0] not in allowed.extra_args:
            yield _forbidden(f"spec.slurm.extraArgs[{index}]", argument, site, "options", allowed.extra_args)


def _is_allowed(text: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a path or a reference is below one of `prefixes`, each of its own sort."""
    if artifact.is_image_reference(text):
        reference = artifact.parse_image(text)
    elif artifact.is_model_reference(text):
        reference = artifact.parse_model(text, "")
    else:
        paths = tuple(each for each in prefixes if "://" not in each)
        return _below_any(text.removeprefix("file://"), paths)
    return any(artifact.is_below(reference, each) for each in prefixes)


def _below_any(path: str, prefixes: tuple[str, ...]) -> bool:
    """Whether `path` is one of `prefixes` or lies below one; whole names count, so /models2 is not below /models."""
    clean = posixpath.normpath(path)
    roots = [posixpath.normpath(prefix) for prefix in prefixes]
    return any(root == "/" or clean == root or clean.startswith(f"{root}/") for root in roots)


def _invalid(path: str, message: str) -> Violation:
    return Violation(path=path, reason="InvalidValue", message=message)


def _forbidden(path: str, value: str, site: Site, what: str, allowed: tuple[str, ...]) -> Violation:
    listed = ", ".join(allowed[:10]) or "none"
    return Violation(
        path=path,
        reason="Forbidden",
        message=f"{value!r} is not allowed on the cluster {site.name}; allowed {what}: {listed}",
    )
