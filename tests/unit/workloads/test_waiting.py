"""Gates and budgets: whose turn it is, and what becomes of who does not wait any longer."""

from __future__ import annotations

import asyncio

import pytest

from llmop.workloads.budget import Budget
from llmop.workloads.gate import Gate


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_was_refused_goes_before_who_is_new() -> None:
    gate = Gate(1)
    before = await gate.enter()
    order: list[str] = []

    async def go(name: str, *, first: bool) -> None:
        turn = await gate.enter(first=first)
        order.append(name)
        gate.leave(turn)

    new = asyncio.create_task(go("new", first=False))
    await settle()
    again = asyncio.create_task(go("again", first=True))
    await settle()
    gate.leave_well(before)
    await asyncio.gather(new, again)
    assert ["again", "new"] == order


async def test_a_pause_ends_by_itself_and_says_why_meanwhile() -> None:
    gate = Gate(4)
    gate.leave_refused(await gate.enter(), 0.05, "full")
    assert "full" == gate.waiting
    started = asyncio.get_running_loop().time()
    turn = await asyncio.wait_for(gate.enter(), 5)
    assert asyncio.get_running_loop().time() >= started + 0.04
    gate.leave_well(turn)
    assert "" == gate.waiting


@pytest.mark.parametrize("leaves_first", [True, False])
async def test_who_is_cancelled_takes_no_place_away(leaves_first: bool) -> None:
    gate = Gate(1)
    before = await gate.enter()
    waiting = [asyncio.create_task(gate.enter()) for _ in range(3)]
    await settle()
    if leaves_first:  # the first one's turn has come when it is cancelled
        gate.leave(before)
        waiting[0].cancel()
    else:
        waiting[0].cancel()
        gate.leave(before)
    await settle()
    assert waiting[0].cancelled()
    turn = await asyncio.wait_for(waiting[1], 5)
    gate.leave(before)  # it was over already
    await settle()
    assert not waiting[2].done()
    gate.leave(turn)
    await asyncio.wait_for(waiting[2], 5)


async def test_a_budget_lets_in_what_fits_in_turn_and_the_largest_alone() -> None:
    budget = Budget(most=10, at_least=2)
    order: list[str] = []
    release = asyncio.Event()

    async def take(name: str, size: int) -> None:
        async with budget.of(size):
            order.append(name)
            await release.wait()
            order.append(f"-{name}")

    tasks = [
        asyncio.create_task(take(name, size)) for name, size in (("a", 1), ("b", 8), ("huge", 99), ("c", 1))
    ]
    await settle()
    assert ["a", "b"] == order
    tasks[3].cancel()
    release.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert ["a", "b", "-a", "-b", "huge", "-huge"] == order
    async with asyncio.timeout(5), budget.of(10):
        pass


async def test_who_went_before_a_refusal_does_not_hide_why_nobody_gets_through() -> None:
    gate = Gate(4)
    early, refused = await gate.enter(), await gate.enter()
    gate.leave_refused(refused, 60.0, "full")
    gate.leave_well(early)
    assert "full" == gate.waiting
