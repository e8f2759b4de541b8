"""Field selectors read what kubectl's do, and name the fields there are when they cannot."""

import pytest

from llmop.domain import field_selectors, resources

REPLICA = resources.Resource(
    kind=resources.REPLICA,
    name="chat-a",
    namespace="lab",
    spec={"deployment": "chat", "revision": 2, "cluster": "main"},
    status={"phase": "Ready", "ready": True, "jobId": None},
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("metadata.name=chat-a", True),
        ("metadata.name!=chat-a", False),
        ("metadata.namespace == lab", True),
        ("status.phase=Ready,spec.deployment=chat", True),
        ("status.phase=Ready,spec.deployment=other", False),
        ("status.phase!=Pending", True),
        ("spec.revision=2", True),
        ("status.ready=true", True),
        ("status.ready=false", False),
        ("status.jobId=", True),
        ("status.node=", True),
        ("status.node!=n1", True),
    ],
)
def test_a_selector_matches_fields(text: str, expected: bool) -> None:
    assert expected is field_selectors.parse(text, resources.REPLICA).matches(REPLICA)


@pytest.mark.parametrize(
    "text", ["status.phase", "=x", "status.phase in (a)", "a=b=c", ",", "status.phase=a,"]
)
def test_a_selector_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"field selector .* cannot read"):
        field_selectors.parse(text, resources.REPLICA)


def test_an_unknown_field_is_answered_with_those_there_are() -> None:
    with pytest.raises(
        ValueError,
        match=r'servingruntimes cannot be selected by "status.phase"; only by metadata\.name, spec\.engine',
    ):
        field_selectors.parse("status.phase=Ready", resources.SERVING_RUNTIME)


def test_every_kind_can_be_selected_by_its_name() -> None:
    assert resources.KINDS.keys() == field_selectors.FIELDS.keys()
    assert all("metadata.name" in field_selectors.selectable(kind) for kind in resources.KINDS)
