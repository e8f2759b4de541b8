"""The number of replicas that the load asks for, and what is remembered of how it came about."""

import dataclasses

from llmop.domain import resources
from llmop.planner import autoscale, values
from llmop.planner.draft import Draft

HISTORY = 10  # steps of the number of replicas that people are shown


def by_load(desired: values.Desired, seen: values.Observed, draft: Draft) -> values.Desired:
    """With the number of replicas that the load asks for, and the step to there in the record."""
    deployment, record = desired.deployment, desired.record
    bounds = deployment.spec.scaling
    if desired.is_held:
        return desired if record.scaling is None else _recorded(desired, record.scaling)
    if bounds is None:
        return desired if record.scaling is None else _recorded(desired, None)
    if record.scaling is None:
        held = sum(1 for each in desired.replicas if each.end is None and each.drain is None)
        return _recorded(desired, values.ScalingRecord(desired=autoscale.bounded(bounds, held)))
    before = record.scaling.desired
    step = autoscale.step(bounds, before, seen.scaling)
    if step.desired == before or deployment.deleted_at is not None:
        return _recorded(desired, record.scaling)
    made = values.ScalingStep(
        at=seen.now,
        before=before,
        after=step.desired,
        reason=step.reason,
        message=step.message,
        inputs=step.inputs,
    )
    owner = resources.Owner(kind=resources.MODEL_DEPLOYMENT, name=deployment.name, uid=deployment.uid)
    message = f"from {before} to {step.desired} replicas: {step.message}"
    draft.actions.append(values.Announce(regarding=owner, warning=False, reason="Scaled", message=message))
    history = (*record.scaling.history, made)[-HISTORY:]
    return _recorded(desired, values.ScalingRecord(desired=step.desired, history=history))


def _recorded(desired: values.Desired, scaling: values.ScalingRecord | None) -> values.Desired:
    deployment = desired.deployment
    if scaling is not None:
        spec = dataclasses.replace(deployment.spec, replicas=scaling.desired)
        deployment = dataclasses.replace(deployment, spec=spec)
    record = dataclasses.replace(desired.record, scaling=scaling)
    return dataclasses.replace(desired, deployment=deployment, record=record)
