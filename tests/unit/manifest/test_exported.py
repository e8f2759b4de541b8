"""What the controller has printed is applied without a word; what somebody typed into its place is named."""

import pytest
from tests.control import manifests

from llmop.manifest import exported

OURS = {
    "uid": "u",
    "generation": 3,
    "resourceVersion": 17,
    "creationTime": "2025-10-09T08:53:20Z",
    "deletionTime": "2025-10-09T08:53:20Z",
    "finalizers": ["llmop/jobs"],
    "owner": {"kind": "ModelDeployment", "name": "x", "uid": "u"},
}


def test_an_export_is_the_manifest_again_and_nothing_is_said_about_it() -> None:
    manifest = manifests.deployment()
    printed = {**manifest, "metadata": {**manifest["metadata"], **OURS}, "status": {"replicas": 2}}

    assert (manifest, ()) == exported.strip(printed)


@pytest.mark.parametrize("status", [{"replicas": 9}, {}, None, "Ready"])
def test_a_status_that_was_typed_by_hand_is_named_and_left_out(status: object) -> None:
    manifest = manifests.deployment()

    assert (manifest, ("status is set by the controller and is ignored",)) == exported.strip(
        {**manifest, "status": status}
    )


def test_metadata_that_was_typed_by_hand_is_named_and_left_out() -> None:
    manifest = manifests.deployment()
    typed = {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": 7, "finalizers": []}}

    kept, warnings = exported.strip(typed)

    assert manifest == kept
    assert warnings == (
        "metadata.resourceVersion is set by the controller and is ignored",
        "metadata.finalizers is set by the controller and is ignored",
    )


@pytest.mark.parametrize("metadata", [None, "x", ["uid"]])
def test_metadata_that_is_no_mapping_is_left_to_the_gate(metadata: object) -> None:
    broken = {**manifests.deployment(), "metadata": metadata}

    assert (broken, ()) == exported.strip(broken)


def test_what_was_given_stays_as_it_was() -> None:
    given = {**manifests.deployment(), "status": {}}

    exported.strip(given)

    assert "status" in given
