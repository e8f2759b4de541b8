"""Label selectors read and mean what kubectl's do."""

import pytest

from llmop.domain import selectors

LABELS = {"team": "nlp", "tier": "prod", "llmop.io/owner": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("team=nlp", True),
        ("team==nlp,tier=prod", True),
        ("team=cv", False),
        ("team=nlp,tier=test", False),
        ("team!=cv", True),
        ("absent!=cv", True),
        ("team!=nlp", False),
        ("team in (cv, nlp)", True),
        ("team in (cv),tier=prod", False),
        ("team notin (cv,asr)", True),
        ("absent notin (cv)", True),
        ("team", True),
        ("absent", False),
        ("!absent", True),
        ("! team", False),
        ("llmop.io/owner=", True),
        ("tier in (prod,test),team in (nlp,cv)", True),
    ],
)
def test_a_selector_matches_labels(text: str, expected: bool) -> None:
    assert expected is selectors.parse(text).matches(LABELS)


@pytest.mark.parametrize("text", ["a b", "=x", "team in nlp", "team>3", "team=a=b", ",", "team=-x"])
def test_a_selector_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="label selector"):
        selectors.parse(text)
