"""What changes from one revision to the next, and how an older one comes back."""

from typing import Any

import pytest
from tests.control import manifests

from llmop.domain import errors, resources
from llmop.manifest import convert, merge, revisions


def stored(**spec: Any) -> resources.Resource:
    return merge.apply(None, manifests.deployment(**spec), manager="llmctl").resource


def template(**spec: Any) -> dict[str, Any]:
    return convert.template_json(stored(**spec))


def test_an_older_template_comes_back_and_nothing_else_changes() -> None:
    live = stored(args=["--new"], env={"A": "1"}, replicas=5, minReady="3s")
    older = template(args=["--old"], slurm={"partition": "gpu"})
    result, changed = revisions.rolled_back(live, older)
    assert ("spec.args", "spec.env.A", "spec.slurm.partition") == changed
    assert older == convert.template_json(result)
    assert (5, "3s") == (result.spec["replicas"], result.spec["minReady"])


def test_what_was_undone_does_not_come_back_by_itself() -> None:
    """The manifest that was undone says what it wants again: that is a conflict, for what was added too."""
    newer = manifests.deployment(args=["--new"], env={"A": "1"})
    live = merge.apply(None, newer, manager="llmctl").resource
    result, _ = revisions.rolled_back(live, template(args=["--old"]))
    with pytest.raises(errors.Conflict) as conflict:
        merge.apply(result, newer, manager="llmctl")
    assert ("spec.args", "spec.env.A") == conflict.value.paths
    assert 'spec.args belongs to "rollout"' in str(conflict.value)
    agreeing = merge.apply(result, manifests.deployment(args=["--old"]), manager="llmctl")
    assert merge.Verdict.UNCHANGED == agreeing.verdict
    assert ["--new"] == merge.apply(result, newer, manager="llmctl", force=True).resource.spec["args"]


def test_the_same_template_changes_nothing() -> None:
    live = stored(args=["--a"], terminationGracePeriod="2m")
    assert (live, ()) == revisions.rolled_back(live, template(args=["--a"], terminationGracePeriod="120s"))


def test_a_field_that_is_taken_belongs_to_one_manager() -> None:
    live = merge.apply(stored(paused=True), {**manifests.deployment(paused=True)}, manager="ci").resource
    result = merge.take(live, {"spec.paused": False}, manager="rollout")
    owners = [name for name, owned in result.owned_fields.items() if "spec.paused" in owned]
    assert (["rollout"], False) == (owners, result.spec["paused"])


def test_causes_say_what_changed() -> None:
    first = template(args=["--a"])
    restarted = {**first, "restartedAt": "2026-01-01T00:00:00Z"}
    many = template(args=["--b"], env={"A": "1", "B": "2"}, image="/a.sif", cluster="default")
    assert [
        "<none>",
        "restarted",
        "changed args, cluster, env.A, env.B and 1 more",
        "back to revision 2",
        "changed args",
    ] == revisions.causes([(2, first), (3, restarted), (4, many), (5, first), (6, template(args=["--c"]))])
