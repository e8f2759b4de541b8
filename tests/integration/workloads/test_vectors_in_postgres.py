"""Vector stores in Postgres behind a real gateway: as in a file, and with a server that goes away."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from tests.integration.workloads.test_assistant import (
    MILL,
    Bench,
    bench,
    embedder,
    test_a_kill_in_the_middle_goes_on_and_doubles_nothing,
    test_a_store_from_its_beginning_to_its_end_with_the_sdk_as_it_is,
    test_what_is_told_of_files_limits_searches_with_the_sdk_as_it_is,
    writer,
)
from tests.rigs.postgres import PostgresRig

__all__ = [
    "bench",
    "embedder",
    "test_a_kill_in_the_middle_goes_on_and_doubles_nothing",
    "test_a_store_from_its_beginning_to_its_end_with_the_sdk_as_it_is",
    "test_what_is_told_of_files_limits_searches_with_the_sdk_as_it_is",
    "writer",
]
ROOMS = 96


@pytest.fixture
def vectors(pgvector_rig: PostgresRig) -> str:
    return pgvector_rig.database("behind_a_gateway")


async def test_a_server_that_goes_away_in_the_middle_is_waited_for(
    bench: Bench, pgvector_rig: PostgresRig
) -> None:
    texts = [f"In room {number} lives somebody whose number is {number * 7919}." for number in range(ROOMS)]
    content = "\n".join(f"# Room {number}\n\n{text}\n" for number, text in enumerate(texts))
    store = await bench.store()
    await bench.put(store, "mill.md", MILL)
    await bench.introduce(store)
    file = await bench.sdk.files.create(file=("rooms.md", content.encode()), purpose="assistants")
    await bench.sdk.vector_stores.files.create(store.id, file_id=file.id)

    async def state() -> Any:
        return await bench.sdk.vector_stores.files.retrieve(file.id, vector_store_id=store.id)

    async with asyncio.timeout(240):
        while not (await state()).usage_bytes:  # noqa: ASYNC110  # polled: nobody tells of it
            await asyncio.sleep(0.01)
        assert (await state()).status == "in_progress"
        pgvector_rig.kill_server()
        try:
            for attempt in (
                bench.search(store, "flour"),
                bench.ask("When does the mill open in the morning?"),
                bench.sdk.vector_stores.list(),
            ):
                with pytest.raises(
                    openai.InternalServerError, match="database of the vector stores"
                ) as raised:
                    await attempt
                assert raised.value.status_code == 503
                assert raised.value.response.headers["retry-after"] == "5"
                assert raised.value.code == "vectors_away"
            # Everything else goes on, also over a start.
            await bench.workloads.kill()
            await bench.workloads.start()
            rows = await bench.sdk.files.create(file=("rows.jsonl", b"{}\n"), purpose="batch")
            assert (await bench.sdk.files.delete(rows.id)).deleted
        finally:
            pgvector_rig.start_server()
        while (document := await state()).status == "in_progress":  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.05)
    assert document.status == "completed", document
    kept = [
        each.text
        async for each in await bench.sdk.vector_stores.files.content(file.id, vector_store_id=store.id)
    ]
    assert kept == texts
    assert document.usage_bytes == sum(len(each) + 384 * 4 for each in texts)
    assert (await bench.search(store, "Who lives in room 77?"))[0].headings == ["Room 77"]
