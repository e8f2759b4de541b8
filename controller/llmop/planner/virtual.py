"""What gateways and people are told about a model without replicas: a Tribunal, an Assistant."""

import dataclasses
from collections.abc import Collection

from llmop.domain import conditions, endpoint
from llmop.domain.assistant import Assistant
from llmop.domain.tribunal import Tribunal

PROTOCOLS = ("openai",)
STORES_UNKNOWN = (
    "its model exists; whether its vector stores do, the controller does not know: llmop.why of {name} in a gateway's /v1/models"
    " says what is missing"
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Public:
    """Names of models as clients may write them, by what answers for them."""

    deployments: Collection[str]
    virtual: Collection[str]


def model(
    kind: str, own: Tribunal | Assistant, created_at: float, name_conflict: str
) -> endpoint.RoutedModel | None:
    """Its public name, which `llmop workloads` answers for; None while another object holds the name."""
    if name_conflict:
        return None
    return endpoint.RoutedModel(
        name=own.name,
        deployment=place(kind, own.namespace, own.name),
        protocols=PROTOCOLS,
        created_at=created_at,
        retry_attempts=0,  # it is its members that are asked again, not all of them
        usage_in_stream=True,
        virtual=True,
    )


def place(kind: str, namespace: str, name: str) -> str:
    """What stands for the deployment in an endpoint table; no deployment can be called so."""
    return f"{kind.lower()}:{namespace}/{name}"


def ready(own: Tribunal | Assistant, public: Public, name_conflict: str) -> conditions.Condition:
    """Whether all models that it asks exist. What is missing is named in their order.

    Vector stores lie in the database of `llmop workloads`, which the controller does not read: gateways say whether they are there.
    """
    models = own.models
    if name_conflict:
        return _ready(conditions.Status.FALSE, "NameConflict", name_conflict)
    nested = [each for each in models if each in public.virtual and each not in public.deployments]
    if nested:
        words = f"a tribunal or an assistant cannot be asked by one: {', '.join(nested)}"
        return _ready(conditions.Status.FALSE, "MemberIsVirtual", words)
    missing = [each for each in models if each not in public.deployments]
    if missing:
        words = f"no deployment serves {', '.join(missing)}"
        return _ready(conditions.Status.FALSE, "MemberMissing", words)
    words = STORES_UNKNOWN.format(name=own.name) if isinstance(own, Assistant) else ""
    return _ready(conditions.Status.TRUE, "MembersExist", words)


def refused(words: str) -> conditions.Condition:
    """This version refuses what is stored of it."""
    return _ready(conditions.Status.FALSE, conditions.SPEC_REFUSED, words)


def _ready(status: conditions.Status, reason: str, message: str) -> conditions.Condition:
    return conditions.Condition(type="Ready", status=status, reason=reason, message=message)
