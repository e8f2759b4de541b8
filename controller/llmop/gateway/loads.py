"""What this gateway has of each deployment, for the controller's autoscaler. Pure."""

from collections.abc import Iterable, Mapping

from llmop.domain.endpoint import RoutedModel
from llmop.domain.scaling import Reported
from llmop.gateway.metrics import Counts


def of(counts: Counts, models: Iterable[RoutedModel], told: Mapping[str, int]) -> dict[str, Reported]:
    """By deployment. `told` is how many refusals for want of a replica the controller was told of already, per deployment."""
    found = {}
    for model in models:
        count = counts.models.get(model.name)
        if count is None:
            continue
        found[model.deployment] = Reported(
            in_flight=count.in_flight,
            unserved=max(0, count.unserved - told.get(model.deployment, 0)),
            generated_tokens=sum(completion for _, completion in count.tokens.values()),
        )
    return found
