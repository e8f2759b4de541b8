"""Tribunals behind a real gateway, with scripted simulators as members and the `openai` SDK as the client."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.engines.simulator_process import SimulatorProcess, simulator_process
from tests.integration.gateway.rig import gateway_rig
from tests.integration.gateway.upstreams import model, waits
from tests.integration.workloads.conftest import Workloads, until
from tests.waiting import eventually

from llmop.api.v1 import gateway_pb2
from llmop.clock import SystemClock
from llmop.manifest import admit

QUESTION = [{"role": "user", "content": "How much is it?"}]
CRITIC, REFINE, JUDGE = "You are a critic", "Critics have read your answer", "Write the final answer"


def reviews(a: float, b: float) -> str:
    rows = {
        "A": {"score": a, "findings": ["a bit short"]},
        "B": {"score": b, "findings": ["well said"]},
    }
    return json.dumps({"reviews": rows})


SCRIPTS: dict[str, dict[str, str]] = {
    "alpha": {
        CRITIC: reviews(5, 7),
        REFINE: "alpha refined it",
        JUDGE: "alpha judges: 42",
        "": "alpha drafts 40",
    },
    "beta": {
        CRITIC: reviews(5, 7),
        REFINE: "beta refined it",
        JUDGE: "beta judges: 42",
        "": "beta drafts 41",
    },
    "keen": {CRITIC: reviews(3, 9.5)},
    "sour": {CRITIC: reviews(8, 1)},
    "babble": {CRITIC: "They are both lovely {indeed}."},
    "stuck": {},  # it never answers
}
ALWAYS = ("alpha", "beta", "keen", "sour", "babble")

USUAL: dict[str, Any] = {
    "drafters": [{"model": "alpha"}, {"model": "beta"}],
    "critics": [{"model": "alpha"}, {"model": "beta"}],
    "judge": {"model": "alpha"},
}
PANELS: dict[str, dict[str, Any]] = {
    "panel": USUAL,
    "short": USUAL | {"rounds": 0},
    "one-down": USUAL | {"drafters": [{"model": "alpha"}, {"model": "beta"}, {"model": "down"}], "rounds": 0},
    "all-down": USUAL | {"drafters": [{"model": "down"}, {"model": "down"}]},
    "garbage": USUAL | {"critics": [{"model": "babble"}, {"model": "alpha"}], "rounds": 0},
    "all-garbage": USUAL | {"critics": [{"model": "babble"}, {"model": "down"}]},
    "slow-judge": USUAL | {"judge": {"model": "stuck"}, "rounds": 0, "roundTimeout": "8s"},
    "strict": USUAL | {"judge": {"model": "stuck"}, "rounds": 0, "roundTimeout": "8s", "onError": "Error"},
    "frugal": USUAL | {"maxTokens": 512, "answerTokens": 64},
    "agreed": USUAL | {"critics": [{"model": "keen"}, {"model": "keen"}], "rounds": 3},
    "split": USUAL | {"critics": [{"model": "keen"}, {"model": "keen"}, {"model": "sour"}], "rounds": 0},
    "waits": USUAL | {"drafters": [{"model": "alpha"}, {"model": "stuck"}]},
    "nested": USUAL | {"drafters": [{"model": "alpha"}, {"model": "panel"}], "rounds": 0},
    "watched": USUAL | {"critics": [{"model": "asleep"}, {"model": "asleep"}], "rounds": 0},
    "patient": USUAL | {"drafters": [{"model": "asleep"}], "rounds": 0, "roundTimeout": "30s"},
    "final": USUAL | {"stream": "Final", "rounds": 0},
}


@dataclasses.dataclass(kw_only=True)
class Bench:
    workloads: Workloads
    members: Mapping[str, SimulatorProcess]
    sdk: openai.AsyncOpenAI

    async def ask(self, panel: str, **more: Any) -> Any:
        return await self.sdk.chat.completions.create(model=panel, messages=QUESTION, **more)  # type: ignore[call-overload]

    async def publish(self, *, serves_asleep: bool = False, **coming: Any) -> None:
        """Returns when the gateway acts on it. `coming` is what is known of the replica of "asleep", for which alpha answers once it serves."""
        served = {name: each.port for name, each in self.members.items()}
        if serves_asleep:
            served["asleep"] = self.members["alpha"].port
        endpoints = [
            gateway_pb2.Endpoint(
                replica=f"{name}-0",
                uid=name,
                host="127.0.0.1",
                port=port,
                state=gateway_pb2.Endpoint.STATE_READY,
                deployment=f"default/{name}",
            )
            for name, port in served.items()
        ]
        engines = [
            model(name, "openai", deployment=f"default/{name}", usage_in_stream=True)
            for name in (*self.members, "down")
        ]
        following = gateway_pb2.NextReplica(**coming)
        asleep = model(
            "asleep",
            "openai",
            deployment="default/asleep",
            queue=waits(),
            upstream_model="alpha",
            next_replica=following,
        )
        virtual = [
            model(name, "openai", deployment=f"tribunal:default/{name}", usage_in_stream=True, virtual=True)
            for name in PANELS
        ]
        control = self.workloads.rig.control
        await control.acknowledged(control.publish(endpoints, [*engines, asleep, *virtual]))

    async def post(self, path: str, panel: str, **more: Any) -> httpx.Response:
        return await self.workloads.call("POST", path, json={"model": panel, "messages": QUESTION} | more)

    def taken(self) -> tuple[int, int]:
        """Prompt and answer tokens that all members together have counted."""
        counted = [each.tokens() for each in self.members.values()]
        return sum(prompt for prompt, _ in counted), sum(answer for _, answer in counted)


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, SimulatorProcess]]:
    folder = tmp_path_factory.mktemp("scripts")
    with contextlib.ExitStack() as stack:
        made = {}
        for name, rules in SCRIPTS.items():
            script = folder / f"{name}.json"
            script.write_text(json.dumps([{"contains": part, "text": text} for part, text in rules.items()]))
            more = ("--fault", "hang@request:1") if name == "stuck" else ()
            made[name] = stack.enter_context(
                simulator_process(
                    "--personality", "vllm", "--served-model-name", name, "--answers", str(script), *more
                )
            )
        yield made


@pytest.fixture
async def bench(folder: Path, members: dict[str, SimulatorProcess]) -> AsyncIterator[Bench]:
    """The tribunals are those that were known last: of a controller this rig has the part for gateways only."""
    write(folder / "workloads" / "tribunals.json", PANELS)
    async with gateway_rig(folder, workloads=folder / "workloads.sock") as rig:
        made = Workloads(folder, rig)
        await made.start()
        async with openai.AsyncOpenAI(base_url=f"{made.url}/v1", api_key=rig.key, max_retries=0) as sdk:
            bench = Bench(workloads=made, members=members, sdk=sdk)
            try:
                await bench.publish()
                yield bench
            finally:
                await made.kill()


def write(path: Path, panels: Mapping[str, dict[str, Any]]) -> None:
    rows = []
    for number, (name, spec) in enumerate(panels.items()):
        document = {
            "apiVersion": "llmop/v1alpha1",
            "kind": "Tribunal",
            "metadata": {"name": name},
            "spec": spec,
        }
        stored = admit.admit(document, namespace="default")
        rows.append(
            {
                "name": name,
                "namespace": "default",
                "uid": name,
                "created_at": float(number),
                "spec": dict(stored.spec),
            }
        )
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text(json.dumps(rows))


def told(answer: Any) -> dict[str, Any]:
    found: dict[str, Any] = answer.llmop["tribunal"]
    return found


def content(answer: Any) -> str:
    text: str = answer.choices[0].message.content
    return text


async def test_drafts_are_refined_and_judged_and_the_sum_is_what_the_engines_counted(bench: Bench) -> None:
    before = bench.taken()
    answer = await bench.ask("panel", seed=3)
    after = bench.taken()

    record = told(answer)
    assert content(answer) == "alpha judges: 42"
    assert (answer.model, answer.object) == ("panel", "chat.completion")
    assert (record["outcome"], record["reason"], record["rounds"], record["seed"]) == ("judged", "", 1, 3)
    assert [each["step"] for each in record["calls"]] == [
        *["draft"] * 2,
        *["critique"] * 2,
        *["refine"] * 2,
        *["critique"] * 2,
        "judge",
    ]
    assert {each["text"] for each in record["drafts"]} == {
        "alpha drafts 40",
        "beta drafts 41",
        "alpha refined it",
        "beta refined it",
    }
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (after[0] - before[0], after[1] - before[1])
    for rows in (record["calls"], record["members"]):
        assert usage.total_tokens == sum(each["tokens"]["total_tokens"] for each in rows)
    assert not record["estimated"]
    assert all(each["seconds"] >= 0 for each in record["calls"])


async def test_a_stream_has_progress_and_then_the_same_answer_and_sum(bench: Bench) -> None:
    whole = await bench.ask("panel", seed=3)
    chunks = [
        chunk
        async for chunk in await bench.ask(
            "panel", seed=3, stream=True, stream_options={"include_usage": True}
        )
    ]

    *events, usage = chunks
    assert usage.choices == []
    assert usage.usage.total_tokens == whole.usage.total_tokens
    assert "".join(each.choices[0].delta.content or "" for each in events) == content(whole)
    assert events[-1].choices[0].finish_reason == "stop"
    assert told(events[-1])["outcome"] == "judged"
    progress = [each.llmop["tribunal"] for each in events[:-1] if getattr(each, "llmop", None)]
    assert [each["step"] for each in progress if each["event"] == "step"] == [
        "draft",
        "critique",
        "refine",
        "critique",
        "judge",
    ]
    assert len([each for each in progress if each["event"] == "call"]) == 9
    first_word = next(place for place, each in enumerate(events) if each.choices[0].delta.content)
    assert not any(getattr(each, "llmop", None) for each in events[first_word:-1])


async def test_usage_is_not_in_a_stream_that_did_not_ask_and_is_counted_all_the_same(bench: Bench) -> None:
    rig = bench.workloads.rig
    chunks = [chunk async for chunk in await bench.ask("final", stream=True)]

    assert all(each.choices for each in chunks)
    assert all(each.usage is None for each in chunks)
    assert sum(1 for each in chunks if getattr(each, "llmop", None)) == 1  # no progress, only the transcript
    total = told(chunks[-1])["members"]
    for kind in ("prompt", "completion"):
        spent = sum(each["tokens"][f"{kind}_tokens"] for each in total)
        counted = await rig.metric(
            f'llmop_gateway_tokens_total{{kind="{kind}",model="final",source="reported"}}'
        )
        assert spent == counted


async def test_a_drafter_that_is_down_is_left_out(bench: Bench) -> None:
    record = told(await bench.ask("one-down"))

    assert record["outcome"] == "judged"
    assert {each["model"] for each in record["drafts"]} == {"alpha", "beta"}
    lost = next(each for each in record["calls"] if each["model"] == "down")
    assert (lost["outcome"], lost["tokens"]) == ("refused", None)
    assert "no replica of the model 'down' is ready" in lost["problem"]


@pytest.mark.parametrize("stream", [False, True])
async def test_without_any_draft_there_is_an_error_with_a_status(bench: Bench, stream: bool) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        await bench.ask("all-down", stream=stream)

    assert caught.value.status_code == 503
    assert caught.value.code == "drafters_busy"
    assert caught.value.response.headers["retry-after"] == "10"
    assert "0 of 2 drafts came" in caught.value.message


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/tribunal"])
async def test_members_wait_for_a_replica_as_long_as_the_client_cares_to(bench: Bench, path: str) -> None:
    answer = await bench.workloads.call(
        "POST",
        path,
        json={"model": "patient", "messages": QUESTION},
        headers={"x-llmop-timeout": "0.2"},
    )
    # It would be 504 after the 30 s of a round
    assert (503, "drafters_busy") == (answer.status_code, answer.json()["error"]["code"])


async def test_who_asks_for_it_hears_what_members_wait_for(bench: Bench) -> None:
    in_an_hour = int(SystemClock().now()) + 3600
    await bench.publish(stage=gateway_pb2.NextReplica.STAGE_PENDING, starts_at=in_an_hour)
    async with bench.workloads.told("watched", QUESTION) as lines:
        before = [line async for line in until(lines, "pending")]
        assert re.fullmatch(r": critic-1, critic-2 asleep: pending, starts in ~(60|59) min", before.pop())
        events = [told_in(line) for line in before]  # both drafts had come, and nothing was waited for
        assert ["draft", "critique"] == [each["step"] for each in events if each["event"] == "step"]
        await bench.publish(stage=gateway_pb2.NextReplica.STAGE_LOADING)
        async for line in until(lines, "loading"):
            assert re.fullmatch(r": critic-1, critic-2 asleep: (pending, starts in ~\d+ min|loading)", line)
        await bench.publish(serves_asleep=True)
        rest = [line async for line in lines]
    assert "data: [DONE]" == rest[-1]
    assert not any("asleep:" in line for line in rest[1:] if line.startswith(":"))
    assert "alpha judges: 42" == "".join(
        json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content") or ""
        for line in rest
        if line.startswith("data: {")
    )


async def test_a_stream_that_began_with_what_it_waits_for_has_its_error_as_an_event(bench: Bench) -> None:
    async with bench.workloads.told("patient", QUESTION, {"x-llmop-timeout": "5"}) as lines:
        rest = [line async for line in lines]
    assert ": drafter-1 asleep: waiting for a replica" == rest[0]
    error = json.loads(rest[-1].removeprefix("data: "))["error"]
    assert "drafters_busy" == error["code"]
    assert "0 of 1 drafts came" in error["message"]


async def test_where_nothing_waits_an_error_is_a_status_as_ever(bench: Bench) -> None:
    answer = await bench.workloads.call(
        "POST",
        "/v1/chat/completions",
        json={"model": "all-down", "messages": QUESTION, "stream": True},
        headers={"x-llmop-progress": "1"},
    )
    assert (503, "drafters_busy") == (answer.status_code, answer.json()["error"]["code"])


@pytest.mark.parametrize("asked", [{"stream": True}, {"stream": False, "progress": "1"}], ids=str)
async def test_others_hear_nothing_of_it(bench: Bench, asked: dict[str, Any]) -> None:
    headers = {"x-llmop-progress": progress} if (progress := asked.pop("progress", "")) else {}
    answer = await bench.workloads.call(
        "POST",
        "/v1/chat/completions",
        json={"model": "patient", "messages": QUESTION} | asked,
        headers={"x-llmop-timeout": "3"} | headers,
    )
    assert (503, "drafters_busy") == (answer.status_code, answer.json()["error"]["code"])


async def test_when_a_client_leaves_that_was_told_its_members_stop_waiting(bench: Bench) -> None:
    queued = 'llmop_gateway_queued{model="asleep",priority="default"}'
    async with bench.workloads.told("patient", QUESTION) as lines:
        assert ": drafter-1 asleep: waiting for a replica" == await anext(lines)
        await bench.workloads.rig.until_metric(queued, 1)
    await bench.workloads.rig.until_metric(queued, 0)
    await bench.workloads.rig.until_metric('llmop_gateway_in_flight{model="patient"}', 0)


def told_in(line: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line.removeprefix("data: "))["llmop"]["tribunal"]
    return found


async def test_a_critic_that_answers_garbage_counts_for_nothing(bench: Bench) -> None:
    record = told(await bench.ask("garbage"))

    assert record["outcome"] == "judged"
    bad, good = record["critiques"]
    assert bad["problem"] == 'invalid: there is no JSON object with "reviews" in the answer'
    assert bad["reviews"] == []
    assert [each["score"] for each in good["reviews"]] == [5, 7]


async def test_without_a_usable_critique_the_judge_decides_alone(bench: Bench) -> None:
    record = told(await bench.ask("all-garbage"))

    assert (record["outcome"], record["rounds"]) == ("judged", 0)
    assert [each["step"] for each in record["calls"]] == [*["draft"] * 2, *["critique"] * 2, "judge"]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_best_draft_answers_for_a_judge_that_takes_too_long(bench: Bench, stream: bool) -> None:
    found = await bench.ask("slow-judge", stream=stream)
    if stream:
        chunks = [chunk async for chunk in found]
        text, record = "".join(each.choices[0].delta.content or "" for each in chunks), told(chunks[-1])
    else:
        text, record = content(found), told(found)

    assert record["outcome"] == "fell_back"
    assert record["reason"].startswith(
        "judge_failed: the judge failed: judge: no answer of the model 'stuck'"
    )
    best = next(each for each in record["drafts"] if each["draft"] == "B")
    assert text == best["text"]
    assert best["standing"] == 7
    await idle(bench, "stuck")


async def test_or_an_error_where_the_tribunal_says_so(bench: Bench) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        await bench.ask("strict")
    assert (caught.value.status_code, caught.value.code) == (504, "judge_failed")

    with pytest.raises(openai.APIError) as broken:
        [chunk async for chunk in await bench.ask("strict", stream=True)]
    assert broken.value.code == "judge_failed"


async def test_a_budget_that_is_spent_ends_it_with_the_best_draft(bench: Bench) -> None:
    answer = await bench.ask("frugal")

    record = told(answer)
    assert record["outcome"] == "fell_back"
    assert record["reason"].startswith("budget_spent: the tokens left are too few for the step ")
    assert content(answer) in {each["text"] for each in record["drafts"]}
    assert answer.usage.total_tokens <= 512


async def test_critics_who_agree_end_it_early(bench: Bench) -> None:
    answer = await bench.ask("agreed")

    record = told(answer)
    assert (record["outcome"], record["rounds"]) == ("agreed", 0)
    assert [each["step"] for each in record["calls"]] == [*["draft"] * 2, *["critique"] * 2]
    assert content(answer) == next(each["text"] for each in record["drafts"] if each["draft"] == "B")


async def test_dissent_is_kept_and_weighs(bench: Bench) -> None:
    record = told(await bench.ask("split"))

    assert [each["dissents"] for each in record["critiques"]] == [False, False, True]
    b = next(each for each in record["drafts"] if each["draft"] == "B")
    assert b["scores"] == [9.5, 9.5, 1]
    assert b["standing"] == pytest.approx((20 / 3 + 1) / 2)


async def test_a_member_that_is_a_tribunal_is_not_asked(bench: Bench) -> None:
    record = told(await bench.ask("nested"))

    lost = next(each for each in record["calls"] if each["model"] == "panel")
    assert lost["outcome"] == "refused"
    assert "has no replicas of its own, and cannot be a member" in lost["problem"]
    assert record["outcome"] == "judged"


@pytest.mark.parametrize("stream", [False, True])
async def test_when_the_client_leaves_its_members_stop(bench: Bench, stream: bool) -> None:
    asking = asyncio.create_task(
        bench.workloads.call(
            "POST",
            "/v1/chat/completions",
            json={"model": "waits", "messages": QUESTION, "stream": stream},
        )
    )
    await bench.workloads.rig.until_metric('llmop_gateway_in_flight{model="stuck"}', 1)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    await idle(bench, "stuck")
    await bench.workloads.rig.until_metric('llmop_gateway_in_flight{model="waits"}', 0)


async def idle(bench: Bench, member: str) -> None:
    """Returns once the gateway and the engine itself have nothing to do for this member."""
    await bench.workloads.rig.until_metric(f'llmop_gateway_in_flight{{model="{member}"}}', 0)

    def is_idle(text: str) -> bool:
        found = re.findall(r"^vllm:num_requests_(?:running|waiting)\S* (\S+)$", text, re.MULTILINE)
        return bool(found) and not any(float(value) for value in found)

    await eventually(lambda: asyncio.to_thread(bench.members[member].metrics), is_idle)


async def test_its_own_route_answers_the_same_and_only_for_tribunals(bench: Bench) -> None:
    answer = await bench.post("/v1/tribunal", "short", seed=1)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "alpha judges: 42"
    assert answer.json()["llmop"]["tribunal"]["name"] == "short"

    other = await bench.post("/v1/tribunal", "alpha")
    assert (other.status_code, other.json()["error"]["code"]) == (422, "route_not_supported")
    wrong = await bench.workloads.call("POST", "/v1/completions", json={"model": "short", "prompt": "x"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "route_not_supported")
    assert "use /v1/chat/completions" in wrong.json()["error"]["message"]
    keyless = await bench.workloads.call(
        "POST", "/v1/tribunal", key="llmop-wrong", json={"model": "short", "messages": QUESTION}
    )
    assert keyless.status_code == 401


async def test_it_is_listed_and_unknown_names_stay_unknown(bench: Bench) -> None:
    listed = {each.id async for each in bench.sdk.models.list()}
    assert set(PANELS) | set(ALWAYS) <= listed
    with pytest.raises(openai.NotFoundError):
        await bench.ask("none-such")


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": []}, "tools"),
        ({"n": 2}, "n"),
        ({"messages": []}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"stream": "yes"}, "stream"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
    ],
)
async def test_what_a_tribunal_cannot_do_is_refused_by_name(
    bench: Bench, more: dict[str, Any], param: str
) -> None:
    answer = await bench.post("/v1/chat/completions", "short", **more)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_without_the_workloads_process_it_is_not_served_and_then_it_is_again(bench: Bench) -> None:
    assert (await bench.ask("short")).choices
    await bench.workloads.kill()
    for _ in range(8):  # it is never left alone for having been away
        answer = await bench.post("/v1/chat/completions", "short")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "workloads_away")
    await bench.workloads.start()
    assert (await bench.ask("short")).choices
