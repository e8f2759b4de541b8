"""llmctl bench measures what is there: an engine whose timing is known, servers whose faults are."""

from __future__ import annotations

import asyncio
import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.engines.simulator_process import simulator_process
from tests.integration.cli.conftest import Transcript
from tests.integration.cli.talkative import DONE, HEAD, ROLE, USAGE, WORD, Behaviour, Call, talking
from tests.rigs.processes import wait_for
from tests.unit.cli.bench.figures_made import level, run

from llmop.cli.bench import loads, results
from llmop.cli.bench.loads import Cell, Lengths, Mode
from llmop.cli.bench.measures import Figures

LLMCTL = Path(sys.executable).parent / "llmctl"


def started(home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [LLMCTL, "bench", "run", "--out", str(home / "out"), *arguments],
        env={"HOME": str(home), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def bench(home: Path, *arguments: str, code: int = 0) -> list[Figures]:
    """The figures of a run that ends so."""
    process = started(home, *arguments)
    out, error = process.communicate(timeout=120)
    assert code == process.returncode, f"{out}\n{error}"
    return list(results.read(home / "out" / "bench.json").figures)


# Timing that is known


PREFILL_PER_SECOND = 4000
BASE_MS, EACH_MS = 20, 1
PHYSICS = (
    f"--prefill-tokens-per-second={PREFILL_PER_SECOND}",
    f"--decode-base-ms={BASE_MS}",
    f"--decode-per-sequence-ms={EACH_MS}",
)


@pytest.mark.parametrize(
    ("personality", "api"), [("vllm", "chat"), ("vllm", "completions"), ("tgi", "chat"), ("tgi", "tgi")]
)
def test_one_stream_has_the_times_of_the_engine(personality: str, api: str, tmp_path: Path) -> None:
    """A prompt is read at so many tokens a second, then each token takes a step; the engine keeps its pace whatever the machine does."""
    step = (BASE_MS + EACH_MS) / 1000
    with simulator_process(f"--personality={personality}", *PHYSICS) as engine:
        arguments = ("--url", engine.url, "--api", api, "--concurrency=1", "--lengths=400:30")
        (found,) = bench(tmp_path, *arguments, "--requests=4", "--duration=1m", "--ignore-eos")
    assert (4, 0, "server") == (found.answered, found.failed, found.tokens_counted_by)
    # Of a chat the template's own tokens are read too.
    assert (30.0, True) == (found.output_tokens, 400 <= found.prompt_tokens <= 410)
    assert (4, 4 * 29) == (found.ttft.count, found.itl.count)
    assert found.ttft.min >= 400 / PREFILL_PER_SECOND
    assert found.itl.mean == pytest.approx(step, rel=0.05)
    assert found.e2e.min >= 400 / PREFILL_PER_SECOND + 28 * step


def test_streams_have_the_times_that_the_server_has_seen_itself(tmp_path: Path) -> None:
    """Definitions to the moment are in the unit tests; here, whatever the machine does besides: a client begins before the server is asked and
    sees each event after it was sent, and the time to the first token and those between tokens make up no more than the whole.
    """
    first: list[float] = []
    whole: list[float] = []

    async def slowly(call: Call) -> None:
        began = time.monotonic()
        call.send(HEAD)
        call.chunk(ROLE)
        for number in range(3):
            await asyncio.sleep(0.1)
            if call.number and number == 0:  # the one with number 0 is the probe
                first.append(time.monotonic() - began)
            call.chunk(WORD + (USAGE % 3 + DONE if number == 2 else b""))
        call.send(b"0\r\n\r\n")
        if call.number:
            whole.append(time.monotonic() - began)

    with talking(slowly) as server:
        arguments = ("--url", server.url, "--model=m", "--concurrency=4", "--requests=12", "--lengths=4:3")
        (found,) = bench(tmp_path, *arguments, "--warm-up=0")
    # Streams that ask when it is enough are not asked to: each of the four may have one more under way.
    assert 12 <= found.answered == len(first) == len(whole) <= 15
    assert (found.answered, 2 * found.answered) == (found.ttft.count, found.itl.count)
    assert found.ttft.mean >= sum(first) / len(first) >= 0.1
    assert found.e2e.mean >= sum(whole) / len(whole) >= 0.3
    assert found.ttft.mean + 2 * found.itl.mean <= found.e2e.mean + 1e-6


# Loads that are known


async def at_once(call: Call) -> None:
    call.answer()


def test_constant_arrivals_come_at_their_rate_and_never_early(tmp_path: Path) -> None:
    with talking(at_once) as server:
        (found,) = bench(
            tmp_path, "--url", server.url, "--model=m", "--rate=40", "--arrivals=constant", "--duration=2s",
            "--warm-up=0.5s", "--lengths=4:2",
        )  # fmt: skip
        came = server.asked_at[1:]  # the first one is the probe
    assert (80, 80, 100) == (found.requests, found.answered, len(came))
    # The last is due 99 periods after the first, and that one may be late.
    assert came[-1] - came[0] >= 99 / 40 - 0.5
    assert found.requests_per_second <= 40 * 1.1


def test_poisson_arrivals_are_those_of_the_seed(tmp_path: Path) -> None:
    with talking(at_once) as server:
        arguments = (
            "--url",
            server.url,
            "--model=m",
            "--rate=50",
            "--duration=4s",
            "--warm-up=0",
            "--lengths=4:2",
        )
        (found,) = bench(tmp_path, *arguments, "--seed=7")
        came = server.asked_at[1:]
    cell = Cell(model="m", mode=Mode.POISSON, level=50, lengths=Lengths(prompt=4, output=2))
    due = [each.at for each in loads.arrivals(cell, 4.0, 7)]
    assert len(due) == len(came) == found.answered
    # Sent when due or later, so the smallest shift between the two clocks is the beginning; no request is before its time.
    begin = min(at - planned for at, planned in zip(came, due, strict=True))
    late = sorted(at - planned - begin for at, planned in zip(came, due, strict=True))
    assert late[len(late) // 2] < 1.0  # of requests that all came at once half would be two seconds off


def test_a_trace_is_replayed_with_its_lengths(tmp_path: Path) -> None:
    rows = "\n".join(f"2023-11-16 18:17:0{at}.0000000,{7 + at},{2 + at}" for at in range(5))
    trace = tmp_path / "own.csv"
    trace.write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}\n")
    asked: list[tuple[int, Any]] = []

    async def listen(call: Call) -> None:
        messages: Any = call.body["messages"]
        asked.append((len(messages[0]["content"].split()), call.body["max_tokens"]))
        call.answer()

    with talking(listen) as server:
        arguments = (
            "--url",
            server.url,
            "--model=m",
            "--trace",
            str(trace),
            "--speed=10",
            "--context-length=16",
        )
        (found,) = bench(tmp_path, *arguments)
        came = server.asked_at[1:]
    assert [(7, 2), (8, 3), (9, 4), (10, 5), (10, 6)] == asked[1:]
    assert (Mode.TRACE, "own", 10, 5) == (found.cell.mode, found.cell.trace, found.cell.level, found.answered)
    assert "1 of 5 requests were shortened to the context length" in found.warnings
    assert came[-1] - came[0] >= 0.35  # four seconds, ten times faster; the first one may have been late


def test_no_prompt_is_asked_twice_in_a_run(tmp_path: Path) -> None:
    """An engine that keeps what it has read would answer the second one sooner."""
    asked: list[str] = []

    async def listen(call: Call) -> None:
        messages: Any = call.body["messages"]
        asked.append(messages[0]["content"])
        call.answer()

    with talking(listen) as server:
        arguments = ("--url", server.url, "--model=m", "--concurrency=1,2", "--requests=9", "--lengths=20:2")
        bench(tmp_path, *arguments, "--warm-up=0", "--seed=7")
    assert len(asked) >= 19
    assert len(asked) == len({" ".join(text.split()[:8]) for text in asked})


def test_a_closed_loop_has_as_many_streams_as_it_says_on_connections_that_are_used_again(
    tmp_path: Path,
) -> None:
    async def slowly(call: Call) -> None:
        call.send(HEAD)
        for _ in range(3):
            call.chunk(WORD)
            await asyncio.sleep(0.02)
        call.chunk(DONE)
        call.send(b"0\r\n\r\n")

    with talking(slowly) as server:
        arguments = ("--url", server.url, "--model=m", "--concurrency=5,32", "--duration=3s", "--lengths=4:3")
        few, many = bench(tmp_path, *arguments, "--warm-up=0")
    assert 32 == server.most_open == server.connections
    assert (5, 32) == (few.client.most_open, many.client.most_open)
    assert ("events", 3.0) == (few.tokens_counted_by, few.output_tokens)
    assert few.itl.min >= 0 and few.itl.mean >= 0.019
    assert few.answered > 5 and many.answered > 32


@pytest.mark.parametrize("most_open", [1000, 3])
def test_a_server_that_stands_still_is_not_spared_the_requests_of_that_time(
    most_open: int, tmp_path: Path
) -> None:
    """20 requests a second are due; for 1.5 s nothing is answered. The 30 of that time waited 0 to 1.5 s, whether they were sent or had to
    wait in the client. Who asks only after an answer sees one slow request: "coordinated omission".
    """
    stall: list[float] = []

    async def stalling(call: Call) -> None:
        if call.number == 10:
            stall.append(time.monotonic() + 1.5)
        if stall:
            await asyncio.sleep(max(0.0, stall[0] - time.monotonic()))
        call.answer()

    with talking(stalling) as server:
        (found,) = bench(
            tmp_path, "--url", server.url, "--model=m", "--rate=20", "--arrivals=constant", "--duration=3s",
            "--warm-up=0", "--lengths=4:2", f"--most-open={most_open}",
        )  # fmt: skip
    assert (60, 60) == (found.requests, found.answered)
    slow = [share for share, seconds in zip(range(0, 100, 5), found.e2e.curve, strict=False) if seconds > 0.7]
    # Half of the 30 waited at least 0.75 s: a quarter of all. Of these 60 a closed loop would have had one.
    assert found.e2e.max >= 1.4
    assert found.e2e.p95 >= 1.5 * 25 / 30
    assert slow and slow[0] <= 80
    assert (most_open == 3) == any(
        "requests waited in the client because 3 were open" in w for w in found.warnings
    )


# Faults that are known


def plain(status: str, body: str = "") -> Behaviour:
    async def behave(call: Call) -> None:
        if call.number == 0:
            call.answer()
        else:
            call.send(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    return behave


def then(*chunks: bytes, closes: bool = False, hangs: bool = False) -> Behaviour:
    async def behave(call: Call) -> None:
        if call.number == 0:
            call.answer()
            return
        call.send(HEAD)
        for chunk in chunks:
            call.chunk(chunk)
        if hangs:
            await asyncio.sleep(600)
        if closes:
            call.writer.close()
        else:
            call.send(b"0\r\n\r\n")

    return behave


async def noise(call: Call) -> None:
    if call.number == 0:
        call.answer()
    else:
        call.send(b"SSH-2.0-OpenSSH_9.2\r\n")
        call.writer.close()


async def silence(call: Call) -> None:
    if call.number == 0:
        call.answer()
    else:
        call.writer.close()


@pytest.mark.parametrize(
    ("behaviour", "kind", "words"),
    [
        pytest.param(plain("429 Busy", '{"error":"busy"}'), "status 429", '{"error":"busy"}', id="429"),
        pytest.param(plain("307 Elsewhere"), "status 307", "", id="redirect"),
        pytest.param(then(WORD, b'data: {"error":"CUDA"}\n\n'), "error event", "CUDA", id="error event"),
        pytest.param(
            then(WORD, b'data: {"error":"CUDA"}\n\n', hangs=True),
            "error event",
            "CUDA",
            id="error event of a stream that goes on",
        ),
        pytest.param(then(WORD, closes=True), "cut off", "lost after 1 pieces", id="cut off"),
        pytest.param(silence, "cut off", "closed without an answer", id="closed"),
        pytest.param(then(DONE), "no token", "the answer has no text", id="no token"),
        pytest.param(then(b"data: {]\n\n"), "protocol", "an event is not the JSON", id="no JSON"),
        pytest.param(then(b"data: 7\n\n"), "protocol", "an event is not the JSON", id="other JSON"),
        pytest.param(noise, "protocol", "not HTTP/1.1", id="no HTTP"),
        pytest.param(then(WORD, hangs=True), "timeout", "no complete answer within 4s", id="timeout"),
    ],
)
def test_errors_are_counted_by_class(behaviour: Behaviour, kind: str, words: str, tmp_path: Path) -> None:
    with talking(behaviour) as server:
        arguments = ("--url", server.url, "--model=m", "--concurrency=2", "--requests=4", "--lengths=4:2")
        (found,) = bench(tmp_path, *arguments, "--timeout=4s", "--warm-up=0", code=217)
    assert [kind] == list(found.errors)
    assert words in found.errors[kind].example
    assert (found.requests, 0, 0) == (found.errors[kind].count, found.answered, found.e2e.count)
    rows = list(csv.DictReader((tmp_path / "out" / "bench.csv").read_text().splitlines()))
    assert [f"{kind}: {found.requests}"] == [row["errors"] for row in rows]


def test_a_connection_that_was_closed_while_nobody_used_it_is_no_error(tmp_path: Path) -> None:
    async def once(call: Call) -> None:
        call.answer()
        await call.writer.drain()
        call.writer.close()  # without a word of it in the head

    with talking(once) as server:
        arguments = ("--url", server.url, "--model=m", "--concurrency=2", "--requests=8", "--lengths=4:2")
        (found,) = bench(tmp_path, *arguments, "--warm-up=0")
    assert (0, found.requests) == (found.failed, found.answered)
    assert server.connections == len(server.asked_at)


def test_a_unix_socket_is_an_address_too(tmp_path: Path) -> None:
    with talking(at_once, tmp_path / "s") as server:
        (found,) = bench(
            tmp_path, "--url", server.url, "--model=m", "--concurrency=1", "--requests=2", "--lengths=4:2"
        )
    assert 0 == found.failed


def test_ctrl_c_prints_what_was_measured_so_far(tmp_path: Path) -> None:
    with talking(at_once) as server:
        process = started(
            tmp_path, "--url", server.url, "--model=m", "--rate=50,60,70", "--duration=1m", "--warm-up=0",
            "--lengths=4:2",
        )  # fmt: skip
        wait_for("some requests", lambda: len(server.asked_at) > 20, timeout=60)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert 130 == process.returncode, error
    (found,) = results.read(tmp_path / "out" / "bench.json").figures
    assert (True, True) == (found.is_interrupted, found.answered >= 19)
    assert re.search(r"^m +4:2 +50/s +\d+ +0 ", out, re.MULTILINE)
    assert "m 4:2 at 50/s poisson: interrupted after" in error
    assert {"bench.json", "bench.csv", "bench.html"} == {each.name for each in (tmp_path / "out").iterdir()}


def test_a_killed_run_leaves_the_results_of_its_finished_measurements(tmp_path: Path) -> None:
    with talking(at_once) as server:
        process = started(
            tmp_path, "--url", server.url, "--model=m", "--rate=50,60", "--duration=1s", "--warm-up=0",
            "--lengths=4:2",
        )  # fmt: skip
        path = tmp_path / "out" / "bench.json"
        wait_for("results", path.exists, timeout=60)
        process.kill()
        process.communicate(timeout=60)
    found = results.read(path).figures
    assert (50, False) == (found[0].cell.level, found[0].is_interrupted)


# What people see


def test_bench_report(transcript: Transcript) -> None:
    direct = run(level(1, 50), level(8, 200), level(64, 201), label="direct")
    gateway = run(level(1, 49), level(8, 190), level(64, 199))
    names = []
    for name, each in (("direct", direct), ("through", gateway)):
        path = transcript.world.directory / name / "bench.json"
        results.write(path, results.to_json(each))
        names.append(str(path))
    transcript.alone("bench", "report", *names)
    transcript.alone("bench", "report", names[1], "--out", str(transcript.world.directory / "page"))
    transcript.alone("bench", "report", transcript.write("other.json", "{}"))
    transcript.alone("bench", "report", str(transcript.world.directory / "nothing.json"))


def test_bench_run_that_measures_nothing(transcript: Transcript) -> None:
    nobody = ("bench", "run", "-m", "m", "--url", "http://127.0.0.1:1")
    transcript.alone(*nobody)
    transcript.alone("bench", "run", "-m", "m", "--url", "127.0.0.1:8080")
    transcript.alone(*nobody, "--concurrency", "0,x", "--rate", "1", "--lengths", "7")
    transcript.alone(*nobody, "--rate", "5000", "--duration", "1h", "--requests", "5")
    transcript.alone(*nobody, "--trace", "code", "--lengths", "1:1")
    trace = transcript.write("t.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n0,5,many\n")
    transcript.alone(*nobody, "--trace", trace)
    transcript.alone(*nobody, "--key-file", "/nowhere")
    transcript.alone("bench", "startup", "--lengths", "7")
