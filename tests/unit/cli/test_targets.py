"""What people mean."""

import pytest

from llmop.cli import session, targets
from llmop.cli.errors import UsageError


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["md"], [("ModelDeployment", "")]),
        (["md,rep"], [("ModelDeployment", ""), ("Replica", "")]),
        (["MODELDEPLOYMENTS.llmop", "a", "b"], [("ModelDeployment", "a"), ("ModelDeployment", "b")]),
        (["md/a", "rep/b"], [("ModelDeployment", "a"), ("Replica", "b")]),
    ],
)
def test_types_and_names(arguments: list[str], expected: list[tuple[str, str]]) -> None:
    assert expected == [(target.kind.name, target.name) for target in targets.parse(arguments)]


@pytest.mark.parametrize("arguments", [[], ["pods"], ["md/a/b"], ["md/"], ["/a"], ["md", ""], ["md,"]])
def test_what_means_nothing_is_refused(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        targets.parse(arguments)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("0", 0),
        ("1.5s", 1.5),
        ("-1s", -1),
        ("7", 7),
    ],
)
def test_durations(text: str, expected: float) -> None:
    assert expected == session.parse_duration(text)


@pytest.mark.parametrize("text", ["", "-", "soon", "5x", "m", "1m1h"])
def test_what_is_no_duration(text: str) -> None:
    assert session.parse_duration(text) is None
