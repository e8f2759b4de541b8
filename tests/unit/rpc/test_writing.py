"""No manifest, however broken, makes the server fail: it is stored, or refused in words of ours."""

import asyncio
import copy
import json
from collections.abc import Coroutine
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.control import manifests

from llmop.domain.errors import LlmopError
from llmop.rpc.writing import Writer
from llmop.testing.clock import FakeClock
from llmop.testing.memory_store import MemoryStore

WORDS = st.sampled_from(
    [
        "",
        "spec",
        "a100:1",
        "cpu:2",
        "-1s",
        "1h",
        "99999d",
        "file:///a",
        "file://../x",
        "{port}",
        "{",
        "0",
        "1e9",
        "9" * 30,
        "é",
        "\x00",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
FULL = manifests.deployment(
    args=["--flag"],
    env={"A": "b"},
    resources={"cpus": 2, "memory": "4Gi"},
    cluster="default",
    replicas=2,
    rolloutStrategy={"type": "RollingUpdate", "maxSurge": 1, "maxUnavailable": 0},
    progressDeadline="30m",
    probes={
        "startup": {"timeout": "30m"},
        "readiness": {"period": "5s"},
        "liveness": {"failureThreshold": 3},
    },
    terminationGracePeriod="120s",
)
BASES = st.sampled_from(
    [FULL, manifests.deployment(), manifests.cluster(), manifests.runtime(), manifests.profile()]
)


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in `value`."""
    found = [here] if here else []
    if isinstance(value, dict):
        for key, item in value.items():
            found += places(item, (*here, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += places(item, (*here, index))
    return found


@st.composite
def broken(draw: st.DrawFn) -> Any:
    """A manifest with one to three values replaced or added."""
    document = copy.deepcopy(draw(BASES))
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(places(document)))
        target = document
        for step in way:
            target = target[step]
        if isinstance(target, dict) and draw(st.booleans()):
            last = draw(WORDS)
        target[last] = draw(JSON)
    return document


def run(work: Coroutine[Any, Any, None]) -> None:
    with capture_logs():
        asyncio.run(work)


async def apply_all(*documents: Any) -> None:
    """Applies to a store that has what the deployments refer to."""
    writer = Writer(MemoryStore(), FakeClock(), lambda kind, namespace, name: None)
    for document in (manifests.cluster(), manifests.runtime(), manifests.profile(), *documents):
        try:
            await writer.apply(json.dumps(document), namespace="", manager="m", force=True, dry_run=False)
        except LlmopError as error:
            assert str(error)


def test_the_manifests_that_are_broken_here_are_whole_before() -> None:
    async def apply() -> None:
        writer = Writer(MemoryStore(), FakeClock(), lambda kind, namespace, name: None)
        for document in (manifests.cluster(), manifests.runtime(), manifests.profile(), FULL):
            await writer.apply(json.dumps(document), namespace="", manager="m", force=False, dry_run=False)

    run(apply())


@given(broken())
@settings(max_examples=150)
def test_a_broken_manifest_is_refused_in_words(document: Any) -> None:
    run(apply_all(document))


@given(broken())
@settings(max_examples=100)
def test_a_broken_change_is_refused_in_words(document: Any) -> None:
    run(apply_all(FULL, manifests.deployment(), document))


@given(JSON)
@settings(max_examples=50)
def test_any_json_is_refused_in_words(document: Any) -> None:
    run(apply_all(document))
