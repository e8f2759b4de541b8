"""What a preflight is about: stored objects, with those of the request over them."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from llmop.domain import deployment as deployments
from llmop.domain import errors, profile, resources, runtime, site
from llmop.domain.checks import PreflightQuestion
from llmop.manifest import admit, convert, references
from llmop.manifest import stored as manifests
from llmop.store.interface import Store

DEFAULT_CLUSTER = "default"
_Value = TypeVar("_Value")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """One sort of job to look at. `deployment` is None for a profile that nobody uses yet."""

    name: str
    template: deployments.Template
    profile: profile.Profile
    deployment: deployments.Deployment | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """Everything a preflight looks at: subjects by the name of their cluster."""

    sites: Mapping[str, site.Site]
    runtimes: Mapping[str, runtime.Runtime]
    profiles: Mapping[str, profile.Profile]
    subjects: Mapping[str, tuple[Subject, ...]]


async def scope(store: Store, question: PreflightQuestion) -> Scope:
    """Raises NotFound, and Invalid for manifests that break rules."""
    given = [_admitted(text, question.namespace) for text in question.manifests_json]
    sites = await _known(store, resources.CLUSTER, given, convert.site)
    runtimes = await _known(store, resources.SERVING_RUNTIME, given, convert.runtime)
    profiles = await _known(store, resources.RESOURCE_PROFILE, given, convert.profile)
    wanted = [each for each in given if each.kind == resources.MODEL_DEPLOYMENT]
    if question.deployment:
        wanted.append(await store.get(resources.MODEL_DEPLOYMENT, question.namespace, question.deployment))
    found: dict[str, list[Subject]] = {}
    for each in wanted:
        deployment = convert.deployment(each)
        template = deployment.spec.template
        used = profiles.get(template.profile) or profile.Profile(name="")
        cluster = question.cluster or references.cluster_of(template, profiles.get(template.profile))
        subject = Subject(
            name=f"md {each.namespace}/{each.name}", template=template, profile=used, deployment=deployment
        )
        found.setdefault(cluster, []).append(subject)
    if not wanted:
        named = [each.name for each in given if each.kind == resources.CLUSTER]
        for cluster in [question.cluster] if question.cluster else named or [DEFAULT_CLUSTER]:
            found[cluster] = [
                Subject(name=f"rp {name}", template=_least(each), profile=each)
                for name, each in sorted(profiles.items())
                if each.cluster == cluster
            ]
    for cluster in found:
        if cluster not in sites:
            raise errors.NotFound(resources.CLUSTER, cluster)
    return Scope(
        sites=sites,
        runtimes=runtimes,
        profiles=profiles,
        subjects={name: tuple(subjects) for name, subjects in found.items()},
    )


def _least(each: profile.Profile) -> deployments.Template:
    """The smallest job that uses a profile."""
    return deployments.Template(
        model_uri="", model_name="", runtime="", profile=each.name, gpus=1 if each.gres else 0
    )


def _admitted(text: str, namespace: str) -> resources.Resource:
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(str(error)) from error
    if not isinstance(document, dict):
        raise _unreadable("a manifest is a mapping")
    return admit.admit(document, namespace=namespace)


def _unreadable(why: str) -> errors.Invalid:
    violation = errors.Violation(path="", reason="InvalidValue", message=f"not a manifest in JSON: {why}")
    return errors.Invalid("object", "", (violation,))


async def _known(
    store: Store, kind: str, given: list[resources.Resource], read: Callable[[resources.Resource], _Value]
) -> Mapping[str, _Value]:
    stored = {each.name: each for each in (await store.list(kind)).items}
    stored |= {each.name: each for each in given if each.kind == kind}
    read_as_sent = {each.name: read(each) for each in given if each.kind == kind}
    return {**manifests.by_name(stored.values(), read), **read_as_sent}
