"""One call of the controller for all who look, and who may look."""

import asyncio
import gzip

import pytest

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


def shown(now: int, etag: str = "e1") -> Overview:
    return Overview(f'{{"now":{now},"clusters":[]}}', 5.0, etag, now)


async def test_what_a_client_has_already_is_not_sent_again_but_for_the_time() -> None:
    first = await operations.answer(shown(7), {})
    again = await operations.answer(shown(12), {"if-none-match": first.headers["etag"]})
    other = await operations.answer(shown(12, "e2"), {"if-none-match": first.headers["etag"]})

    assert (200, b'{"now":7,"clusters":[]}') == (first.status_code, first.body)
    assert (304, b"", "12") == (again.status_code, again.body, again.headers["x-llmop-now"])
    assert (200, b'{"now":12,"clusters":[]}') == (other.status_code, other.body)
    assert "content-length" not in again.headers


async def test_a_controller_that_says_no_state_is_passed_on_each_time() -> None:
    answer = await operations.answer(Overview("{}", 5.0), {"if-none-match": 'W/""'})

    assert (200, b"{}", False) == (answer.status_code, answer.body, "etag" in answer.headers)


@pytest.mark.parametrize("accepted", ["", "gzip;q=0", "GZIP; q=0.000, br", "x-notgzip", "identity"])
async def test_who_does_not_take_gzip_gets_none(accepted: str) -> None:
    answer = await operations.answer(shown(7), {"accept-encoding": accepted})
    assert "content-encoding" not in answer.headers


async def test_whoever_accepts_gzip_gets_it() -> None:
    answer = await operations.answer(shown(7), {"accept-encoding": "br, gzip"})

    assert "gzip" == answer.headers["content-encoding"]
    assert b'{"now":7,"clusters":[]}' == gzip.decompress(answer.body)


def test_a_text_is_put_to_another_time() -> None:
    assert '{"now":12,"x":1}' == operations.at('{"now":7,"x":1}', 7, 12)
    assert "{}" == operations.at("{}", 7, 12)
