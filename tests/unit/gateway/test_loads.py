"""What a gateway tells of its load."""

from llmop.domain.endpoint import RoutedModel
from llmop.domain.scaling import Reported
from llmop.gateway import loads
from llmop.gateway.metrics import Counts
from llmop.gateway.usage import Usage

MODEL = RoutedModel(name="m", deployment="default/a", protocols=("tgi",), created_at=0.0)
OTHER = RoutedModel(name="n", deployment="default/b", protocols=("tgi",), created_at=0.0)


def test_each_deployment_has_its_numbers_and_refusals_are_told_once() -> None:
    counts = Counts()
    counts.keep(["m", "n"])
    counts.models["m"].in_flight = 3
    counts.models["m"].unserved = 5
    counts.models["m"].spent(Usage(prompt=9, completion=4, estimated=False))
    counts.models["m"].spent(Usage(prompt=9, completion=2, estimated=True))

    assert {
        "default/a": Reported(in_flight=3, unserved=2, generated_tokens=6),
        "default/b": Reported(generated_tokens=0),
    } == loads.of(counts, (MODEL, OTHER), {"default/a": 3})


def test_a_model_that_is_not_counted_yet_is_not_told() -> None:
    assert {} == loads.of(Counts(), (MODEL,), {})
