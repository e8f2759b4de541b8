"""Stored APIKeys as gateways get them."""

from llmop.domain import resources
from llmop.reconciler import clients


def stored(name: str, digest: str, created_at: float = 1.0) -> resources.Resource:
    return resources.Resource(
        kind="APIKey",
        name=name,
        namespace="default",
        uid=f"uid-{name}",
        created_at=created_at,
        spec={"keyHash": digest},
    )


def test_the_older_one_of_two_objects_has_a_hash_that_both_claim() -> None:
    one, other = "sha256:" + 64 * "1", "sha256:" + 64 * "2"
    found = clients.keys([stored("b", one, 2.0), stored("c", one, 1.0), stored("a", other)])
    assert [("default/a", 64 * "2"), ("default/c", 64 * "1")] == [(each.name, each.digest) for each in found]


def test_what_cannot_be_read_opens_nothing_and_keeps_nobody_out() -> None:
    good = "sha256:" + 64 * "1"
    assert ["default/b"] == [each.name for each in clients.keys([stored("a", "plain"), stored("b", good)])]
