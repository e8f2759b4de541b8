"""File access with an end."""

import asyncio
import threading

import pytest

from llmop.cluster import file_threads


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_threads, "PATIENCE_S", 0.1)


async def test_what_hangs_is_given_up_and_what_waits_behind_it_is_never_begun() -> None:
    threads = file_threads.FileThreads("test")
    hangs, begun = threading.Event(), []
    try:
        with pytest.raises(TimeoutError, match=r"does not answer within 0\.1 s"):
            await threads.run(hangs.wait)
        with pytest.raises(TimeoutError):
            await threads.run(begun.append, "second")
    finally:
        hangs.set()
    await threads.run(begun.append, "third")
    assert ["third"] == begun


async def test_one_place_that_hangs_takes_nothing_from_another() -> None:
    hangs = threading.Event()
    places = [file_threads.FileThreads(f"test-{number}") for number in range(20)]
    try:
        waiting = [asyncio.ensure_future(place.run(hangs.wait)) for place in places]
        assert "here" == await file_threads.FileThreads("other").run(lambda: "here")
        assert all(
            isinstance(each, TimeoutError) for each in await asyncio.gather(*waiting, return_exceptions=True)
        )
    finally:
        hangs.set()


async def test_what_goes_wrong_is_told_as_it_is() -> None:
    def refuse() -> None:
        raise PermissionError(13, "Permission denied", "/x")

    with pytest.raises(PermissionError):
        await file_threads.FileThreads("test").run(refuse)
