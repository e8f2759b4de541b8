"""Builds the planner's input for one deployment from the mirror of the store."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping

from llmop.domain import deployment as deployments
from llmop.domain import profile, replica, resources, runtime, site
from llmop.manifest import convert, references, stored
from llmop.planner import values, virtual
from llmop.reconciler import codec, mirror
from llmop.store import interface


def template_hash(template: Mapping[str, object]) -> str:
    """The same for the same template, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(template, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[
        :16
    ]


def no_profile(cluster: str) -> profile.Profile:
    """For deployments whose `slurm` options say all."""
    return profile.Profile(name="", cluster=cluster)


def resolved(each: deployments.Deployment, known: Mapping[str, profile.Profile]) -> deployments.Deployment:
    """The deployment with the name of the cluster that runs it."""
    template = each.spec.template
    cluster = references.cluster_of(template, known.get(template.profile))
    return dataclasses.replace(
        each, spec=dataclasses.replace(each.spec, template=dataclasses.replace(template, cluster=cluster))
    )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Converted:
    """What follows from the spec of one generation of a deployment and from the references."""

    deployment: deployments.Deployment
    template: Mapping[str, object]  # as a revision keeps it
    template_hash: str
    problems: tuple[str, ...]
    refusal: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    """A replica, and what it was made of."""

    resource: resources.Resource
    ledger: interface.Ledger
    replica: replica.Replica


class Gatherer:
    """What is converted is kept as long as the objects that it comes from do not change: most passes change nothing."""

    def __init__(self, copied: mirror.Mirror) -> None:
        self._mirror = copied
        self._references: (
            tuple[Mapping[str, runtime.Runtime], Mapping[str, profile.Profile], Mapping[str, site.Site]]
            | None
        ) = None
        self._refusals: dict[tuple[str, str], str] = {}  # of those, by kind and name
        self._converted: dict[tuple[str, str], _Converted] = {}
        self._revisions: dict[tuple[str, str], dict[tuple[str, int], values.Revision]] = {}
        self._replicas: dict[tuple[str, str], dict[str, _Known]] = {}

    def forget(self) -> None:
        """Runtimes, profiles or clusters have changed."""
        self._references = None
        self._converted.clear()
        self._revisions.clear()

    def drop(self, namespace: str, name: str) -> None:
        """The deployment is gone."""
        self._converted.pop((namespace, name), None)
        self._revisions.pop((namespace, name), None)
        self._replicas.pop((namespace, name), None)

    def known(
        self,
    ) -> tuple[Mapping[str, runtime.Runtime], Mapping[str, profile.Profile], Mapping[str, site.Site]]:
        """What can be read of all there are; `refused` says of which this version refuses something."""
        if self._references is None:
            self._references = (
                stored.by_name(self._mirror.all(resources.SERVING_RUNTIME), convert.runtime),
                stored.by_name(self._mirror.all(resources.RESOURCE_PROFILE), convert.profile),
                stored.by_name(self._mirror.all(resources.CLUSTER), convert.site),
            )
            kinds = (resources.SERVING_RUNTIME, resources.RESOURCE_PROFILE, resources.CLUSTER)
            every = [each for kind in kinds for each in self._mirror.all(kind)]
            self._refusals = {
                (each.kind, each.name): words for each in every if (words := stored.refusal(each))
            }
        return self._references

    def refused(self, template: deployments.Template, cluster: str) -> tuple[str, ...]:
        """What is refused of what replicas of `template` need on `cluster`: as long as it is, none is submitted."""
        self.known()
        needed = (
            (resources.SERVING_RUNTIME, template.runtime),
            (resources.RESOURCE_PROFILE, template.profile),
            (resources.CLUSTER, cluster),
        )
        return tuple(
            f'{kind} "{name}": {self._refusals[kind, name]}'
            for kind, name in needed
            if (kind, name) in self._refusals
        )

    def desired(self, owner: resources.Resource, ledgers: Mapping[str, interface.Ledger]) -> values.Desired:
        """Everything stored about the deployment `owner`. Replicas without a ledger row cannot exist and are left out."""
        converted = self._convert(owner)
        deployment = converted.deployment
        return values.Desired(
            deployment=deployment,
            template_hash=converted.template_hash,
            revisions=self._revisions_of(owner),
            replicas=self.replicas(owner, ledgers),
            record=codec.record_of(owner.status),
            runtime=self.known()[0].get(deployment.spec.template.runtime),
            problems=converted.problems,
            name_conflict=self.name_conflict(owner),
            refusal=converted.refusal or self._unreadable_replicas(owner),
        )

    def template(self, owner: resources.Resource) -> Mapping[str, object]:
        """What a new revision of `owner` keeps."""
        return self._convert(owner).template

    def deployment(self, owner: resources.Resource) -> deployments.Deployment:
        """The deployment `owner`, with the name of its cluster."""
        return self._convert(owner).deployment

    def _convert(self, owner: resources.Resource) -> _Converted:
        known_runtimes, known_profiles, known_sites = self.known()
        key = (owner.namespace, owner.name)
        found = self._converted.get(key)
        if (
            found is None
            or found.deployment.uid != owner.uid
            or found.deployment.generation != owner.generation
        ):
            written, refusal = stored.deployment(owner, self._templates(owner))
            template = convert.write_template(written.spec.template)
            deployment = resolved(written, known_profiles)
            violations = references.check(deployment, known_runtimes, known_profiles, known_sites)
            refused = self.refused(deployment.spec.template, deployment.spec.template.cluster)
            if refused:  # what is there and refused was not forgotten
                violations = tuple(each for each in violations if each.reason != "NotFound")
            found = self._converted[key] = _Converted(
                deployment=deployment,
                template=template,
                template_hash=template_hash(template),
                problems=(*refused, *(f"{each.path}: {each.message}" for each in violations)),
                refusal=refusal,
            )
        deployment = dataclasses.replace(found.deployment, resource_version=owner.resource_version)
        return dataclasses.replace(found, deployment=deployment)

    def _templates(self, owner: resources.Resource) -> list[Mapping[str, object]]:
        """Those of its revisions as they are stored, the newest first."""
        children = self._mirror.children(owner.uid, resources.REVISION)
        readable = [each for each in children if codec.is_revision(each)]
        return [each.spec["template"] for each in sorted(readable, key=codec.number_of, reverse=True)]

    def _unreadable_replicas(self, owner: resources.Resource) -> str:
        """Nobody knows what these are made of: their deployment is held as they are, or it would make others in their place."""
        children = self._mirror.children(owner.uid, resources.REPLICA)
        names = [each.name for each in children if not codec.is_replica(each)]
        if not names:
            return ""
        return f"what is stored of {', '.join(names)} cannot be read: delete it with llmctl delete replica {names[0]}"

    def _revisions_of(self, owner: resources.Resource) -> tuple[values.Revision, ...]:
        """By number, with the names of their clusters. Revisions change only when their references are pinned."""
        key = (owner.namespace, owner.name)
        known = self._revisions.get(key, {})
        children = self._mirror.children(owner.uid, resources.REVISION)
        self._revisions[key] = {
            (each.uid, each.resource_version): known.get((each.uid, each.resource_version))
            or self._revision(each)
            for each in children
            if codec.is_revision(each)
        }
        return tuple(sorted(self._revisions[key].values(), key=lambda each: each.number))

    def _revision(self, resource: resources.Resource) -> values.Revision:
        revision = codec.revision_of(resource)
        cluster = references.cluster_of(revision.template, self.known()[1].get(revision.template.profile))
        return dataclasses.replace(revision, template=dataclasses.replace(revision.template, cluster=cluster))

    def replicas(
        self, owner: resources.Resource, ledgers: Mapping[str, interface.Ledger]
    ) -> tuple[replica.Replica, ...]:
        key = (owner.namespace, owner.name)
        before = self._replicas.get(key, {})
        now: dict[str, _Known] = {}
        for each in self._mirror.children(owner.uid, resources.REPLICA):
            ledger = ledgers.get(each.uid)
            if ledger is None:
                continue
            known = before.get(each.uid)
            if known is None or known.resource is not each or known.ledger != ledger:
                known = _Known(resource=each, ledger=ledger, replica=codec.replica_of(each, ledger))
            now[each.uid] = known
        self._replicas[key] = now
        return tuple(known.replica for known in now.values())

    def name_conflict(self, owner: resources.Resource) -> str:
        """Public model names are unique in an installation: the oldest object holds the name."""
        model = mirror.public_name(owner)
        holders = [each for each in self._mirror.of_model(model) if each.deleted_at is None]
        oldest = min(holders, key=lambda each: (each.created_at, each.uid), default=owner)
        if oldest.uid == owner.uid or owner.deleted_at is not None:
            return ""
        kind = "" if oldest.kind == resources.MODEL_DEPLOYMENT else f"the {oldest.kind} "
        fix = (
            "set another spec.model.name"
            if owner.kind == resources.MODEL_DEPLOYMENT
            else "give this one another name"
        )
        return f'the model name "{model}" is held by {kind}{oldest.namespace}/{oldest.name}: {fix}'

    def public(self) -> virtual.Public:
        """Which public names there are."""
        names = {
            kind: {mirror.public_name(each) for each in self._mirror.all(kind) if each.deleted_at is None}
            for kind in mirror.PUBLIC
        }
        return virtual.Public(
            deployments=names[resources.MODEL_DEPLOYMENT],
            virtual=frozenset().union(*(names[kind] for kind in resources.VIRTUAL)),
        )
