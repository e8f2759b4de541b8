"""One call of the controller for all who look, and who may look."""

import asyncio

from llmop.domain.client import ClientKey
from llmop.gateway import operations
from llmop.gateway.keys import KEYLESS
from llmop.gateway.operations import FRESH_S, Overview, Overviews


class Controller:
    def __init__(self) -> None:
        self.now = 100.0
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.overviews = Overviews(self.overview, lambda: self.now)

    async def overview(self) -> Overview:
        self.asked += 1
        number = self.asked
        await self.may_answer.wait()
        return Overview(str(number), self.now)


async def test_all_who_ask_at_a_time_get_one_answer() -> None:
    controller = Controller()
    controller.may_answer.clear()
    asking = [asyncio.create_task(controller.overviews.get()) for _ in range(20)]
    await asyncio.sleep(0)
    controller.may_answer.set()

    assert {"1"} == {(await each).text for each in asking}


async def test_an_answer_is_good_for_a_moment() -> None:
    controller = Controller()
    seen = []
    for later in (0.0, FRESH_S / 2, FRESH_S, FRESH_S / 2):
        controller.now += later
        seen.append((await controller.overviews.get()).text)

    assert ["1", "1", "2", "2"] == seen


async def test_who_leaves_does_not_take_the_answer_of_others_along() -> None:
    controller = Controller()
    controller.may_answer.clear()
    first = asyncio.create_task(controller.overviews.get())
    second = asyncio.create_task(controller.overviews.get())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    controller.may_answer.set()

    assert "2" == (await second).text


def test_the_right_is_an_api_keys_alone() -> None:
    granted = ClientKey(name="default/op", digest="0" * 64, operations=True)
    of_file = ClientKey(name="me", digest="1" * 64)

    assert [True, False, False] == [operations.is_shown_to(each) for each in (granted, of_file, KEYLESS)]


def test_the_refusal_says_how_long_the_controller_has_been_away() -> None:
    assert "did 42 s ago" in operations.controller_away(100.0, 142.3).message
    assert "has not since this gateway began" in operations.controller_away(None, 142.3).message
