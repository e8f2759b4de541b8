"""Which endpoints gateways get to see."""

from collections.abc import Sequence

from llmop.domain import endpoint, replica
from llmop.planner import assess, values

GATEWAY_PATIENCE_S = 10.0  # a gateway that is slower keeps nobody from being called ready


def endpoints(
    deployment: str, replicas: Sequence[assess.Assessment], seen: values.Observed
) -> tuple[endpoint.Endpoint, ...]:
    """The endpoints of one deployment (`namespace/name`), sorted by name: routed ones, and draining ones until they are gone."""
    result = []
    for each in replicas:
        state = _state(each)
        api_key = seen.api_keys.get(each.facts.uid)
        if state is None or api_key is None:
            continue
        result.append(
            endpoint.Endpoint(
                replica=each.facts.name,
                uid=each.facts.uid,
                host=each.facts.host,
                port=each.facts.port,
                api_key=api_key,
                state=state,
                deployment=deployment,
            )
        )
    return tuple(sorted(result, key=lambda one: one.replica))


def _state(each: assess.Assessment) -> endpoint.EndpointState | None:
    if each.is_over or not each.facts.host or each.phase is replica.Phase.ENDED:
        return None
    if each.facts.drain is not None or each.phase is replica.Phase.DRAINING:
        return endpoint.EndpointState.DRAINING if each.facts.ready_at is not None else None
    if not each.is_routed:
        return None
    return (
        endpoint.EndpointState.SUSPECT
        if each.phase is replica.Phase.SUSPECT
        else endpoint.EndpointState.READY
    )


def unknown_until(replicas: Sequence[assess.Assessment], seen: values.Observed) -> float | None:
    """None when every live gateway knows all routed replicas; else when they are not waited for any longer."""
    if seen.routed_by_gateways is None:
        return None
    ends = [
        each.facts.ready_at + GATEWAY_PATIENCE_S
        for each in replicas
        if each.is_routed
        and each.facts.ready_at is not None
        and each.facts.uid not in seen.routed_by_gateways
    ]
    return max((at for at in ends if at > seen.now), default=None)


def model(desired: values.Desired, following: endpoint.NextReplica) -> endpoint.RoutedModel | None:
    """The public model of a deployment; None while it goes, or while another one holds the name."""
    deployment = desired.deployment
    if deployment.deleted_at is not None or desired.name_conflict or desired.runtime is None:
        return None
    return endpoint.RoutedModel(
        name=deployment.spec.template.model_name,
        deployment=f"{deployment.namespace}/{deployment.name}",
        protocols=desired.runtime.protocols,
        created_at=deployment.created_at,
        upstream_model=desired.runtime.served_name,
        usage_in_stream=desired.runtime.usage_in_stream,
        max_in_flight=deployment.spec.max_in_flight or desired.runtime.max_in_flight,
        queue=deployment.spec.queue,
        next_replica=following,
        wakes=deployment.spec.scaling is not None,
    )
