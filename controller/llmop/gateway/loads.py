"""What this gateway has of each deployment, for the controller's autoscaler. Pure."""

from collections.abc import Mapping, Sequence

from llmop.domain.endpoint import RoutedModel
from llmop.domain.scaling import Reported
from llmop.gateway.metrics import Counts


def of(counts: Counts, models: Sequence[RoutedModel], told: Mapping[str, int]) -> dict[str, Reported]:
    """By deployment. `told` is how many refusals for want of a replica the controller was told of already, per deployment."""
    tokens = generated(counts, models)
    found = {}
    for model in models:
        count = counts.models.get(model.name)
        if count is not None:
            found[model.deployment] = Reported(
                in_flight=count.in_flight,
                unserved=max(0, count.unserved - told.get(model.deployment, 0)),
                generated_tokens=tokens[model.deployment],
            )
    return found


def generated(counts: Counts, models: Sequence[RoutedModel]) -> dict[str, int]:
    """Tokens that the replicas of each deployment have generated since this gateway began."""
    return {
        model.deployment: sum(completion for _, completion in counts.models[model.name].tokens.values())
        for model in models
        if model.name in counts.models
    }
