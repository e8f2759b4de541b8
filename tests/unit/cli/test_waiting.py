"""What people read while a deletion is waited for."""

import pytest

from llmop.api.v1 import resources_pb2
from llmop.cli import waiting


@pytest.mark.parametrize(
    ("finalizers", "words"),
    [
        ([], "the controller"),
        (["llmop/jobs"], "the controller"),
        (["llmop/jobs", "lab/backup"], "lab/backup"),
    ],
)
def test_the_mark_of_llmop_itself_stands_for_the_controller(finalizers: list[str], words: str) -> None:
    item = resources_pb2.Object(
        kind="ModelDeployment", metadata=resources_pb2.Metadata(name="chat", finalizers=finalizers)
    )
    assert f"waiting for {words}" == waiting.blocking(item, [])
