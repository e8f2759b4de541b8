"""llmctl against a whole installation: what talks with models, what shows their load, rollouts, logs. Real processes, as on a laptop."""

from __future__ import annotations

import contextlib
import http.client
import os
import pty
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.e2e.installation import simulator
from tests.integration.laptop import BIN, Laptop
from tests.rigs.processes import wait_for

ROOT = Path(__file__).resolve().parents[2]


SLOWLY = ("--decode-base-ms=20",)  # 3000 tokens take a minute: nobody is too late to stop them


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """Two models: `sim` speaks both dialects, `plain` that of OpenAI only, and slowly."""
    made = Laptop(tmp_path_factory.mktemp("laptop"))
    try:
        made.up("--ephemeral")
        runtime = yaml.safe_load((ROOT / "manifests/runtimes/simulator.yaml").read_text())
        runtime["metadata"]["name"] = "plain"
        runtime["spec"]["protocols"] = ["openai"]
        made.apply(runtime, simulator(replicas=2), simulator("plain", runtime="plain", args=SLOWLY))
        made.wait_ready("sim")
        made.wait_ready("plain")
        yield made
    finally:
        made.clean()


def run(laptop: Laptop, *argv: str, text: str = "") -> tuple[int, str, str]:
    done = laptop.run(*argv, text=text)
    return done.returncode, done.stdout, done.stderr


def test_generate_streams_the_text_of_the_engine(laptop: Laptop) -> None:
    arguments = ("generate", "-m", "sim", "--max-new-tokens=5", "--seed=7", "once upon a time")
    code, text, error = run(laptop, *arguments)
    assert (0, "", 5) == (code, error, len(text.split()))
    wanted = {"inputs": "once upon a time", "parameters": {"max_new_tokens": 5, "seed": 7}}
    assert laptop.post("/models/sim/generate", wanted)["generated_text"].strip() == text.strip()
    assert text == run(laptop, *arguments[:-1], text="once upon a time")[1]
    assert "5 pieces; the first after" in run(laptop, *arguments, "--stats")[2]


def test_generate_takes_the_dialect_that_a_model_speaks(laptop: Laptop) -> None:
    code, text, error = run(laptop, "generate", "-m", "plain", "--max-new-tokens=4", "--seed=7", "Hello")
    assert (0, "", 4) == (code, error, len(text.split()))
    assert (0, text, "") == run(
        laptop, "generate", "-m", "plain", "--max-new-tokens=4", "--seed=7", "--api=openai", "Hello"
    )
    code, text, error = run(laptop, "generate", "-m", "plain", "--api=tgi", "Hello")
    assert (207, "", True) == (code, text, "does not speak the dialect 'tgi'" in error)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("generate", "Hello"), 202, "say which model with -m: plain, sim"),
        (("generate", "-m", "sim", ""), 202, "is empty"),
        (("generate", "-m", "nobody", "Hello"), 209, "Error from gateway (404)"),
        (("generate", "-m", "sim", "--top-p=2", "Hello"), 202, "--top-p"),
        (
            ("generate", "-m", "sim", "--gateway=http://127.0.0.1:1", "Hello"),
            204,
            "cannot be reached: Connection refused",
        ),
        (("generate", "-m", "sim", "--gateway=ftp://x", "Hello"), 202, "write http://HOST:PORT"),
        (("generate", "-m", "sim", "--key-file=/nowhere", "Hello"), 203, "/nowhere: the key cannot be read"),
        (("chat", "-m", "sim", "--gateway=unix:/nowhere", "Hello"), 204, "cannot be reached"),
        (("chat", "-m", "sim", "--max-tokens=0", "Hello"), 202, "--max-tokens"),
        (("top", "-m", "nobody", "--interval=0.1"), 209, 'no model "nobody"'),
        (("top", "--interval=0"), 202, "--interval"),
        (("top", "--replicas", "-m", "sim"), 202, "--replicas or -m"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    laptop: Laptop, arguments: tuple[str, ...], code: int, words: str
) -> None:
    found = run(laptop, *arguments)
    assert (code, "") == found[:2]
    assert words in found[2]


def test_a_wrong_key_is_said_to_be_wrong(laptop: Laptop, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("llmop-wrong\n")
    code, _, error = run(laptop, "chat", "-m", "sim", "--key-file", str(tmp_path / "key"), "Hello")
    assert (205, True) == (code, "Error from gateway (401)" in error)


def test_the_key_of_the_context_goes_to_no_other_gateway(laptop: Laptop) -> None:
    """A listener that somebody names by hand gets no key that was not named with it."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        heard: list[bytes] = []

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert 209 == run(laptop, "chat", "-m", "sim", "--gateway", f"http://127.0.0.1:{port}", "Hello")[0]
        thread.join(20)
    assert b"POST /models/sim/v1/chat/completions" in heard[0]
    assert b"authorization" not in heard[0].lower()


def test_chat_answers_once(laptop: Laptop) -> None:
    code, text, error = run(laptop, "chat", "-m", "sim", "--max-tokens=3", "--seed=1", "Hello")
    assert (0, "", 3) == (code, error, len(text.split()))
    assert (0, text, "") == run(laptop, "chat", "-m", "sim", "--max-tokens=3", "--seed=1", text="Hello\n")


class Terminal:
    """llmctl on a terminal of its own, so that Ctrl-C is typed and not sent: what it shows, and keys for it."""

    def __init__(self, laptop: Laptop, *argv: str) -> None:
        self._side, other = pty.openpty()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", BIN / "llmctl", *argv],  # its session and its process are the program's
            env={**laptop.environment, "TERM": "dumb"},
            stdin=other,
            stdout=other,
            stderr=other,
        )
        os.close(other)
        self.shown = ""

    def until(self, pattern: str) -> str:
        """Everything up to where `pattern` stands; it is taken off."""
        deadline = time.monotonic() + 60
        while (found := re.search(pattern, self.shown)) is None:
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.shown!r}"
            if select.select([self._side], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self._side, 65536).decode()
                except OSError:
                    break
        assert found is not None, self.shown
        before, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return before

    def type(self, text: str) -> None:
        os.write(self._side, text.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._side)


def test_a_conversation_on_a_terminal(laptop: Laptop) -> None:
    terminal = Terminal(laptop, "chat", "-m", "sim", "--max-tokens=3", "--seed=1")
    try:
        terminal.until(r"sim \(/clear forgets.*\r\n> ")
        terminal.type("Hello\n")
        first = terminal.until(r"\r\n> $")
        assert 4 == len(first.removesuffix("> ").split()), first  # what was typed, and three words
        terminal.type("/what\n")
        terminal.until(r"/clear forgets.*\r\n> ")
        terminal.type("/clear\n")
        terminal.until(r"> ")
        terminal.type("Hello\n")
        assert first.split() == terminal.until(r"\r\n> $").split()  # the same as if nothing had been said
        terminal.type("/exit\n")
        assert 0 == terminal.process.wait(60)
    finally:
        terminal.close()


def test_ctrl_c_stops_an_answer_and_ctrl_d_the_conversation(laptop: Laptop) -> None:
    terminal = Terminal(laptop, "chat", "-m", "plain", "--max-tokens=3000")
    try:
        terminal.until(r"> ")
        terminal.type("Hello\n")
        terminal.until(r"Hello\r\n\s*\w+ \w+ ")
        terminal.type("\x03")
        terminal.until(r"\(stopped; it is not remembered\)\r\n> ")
        terminal.type("\x04")
        assert 0 == terminal.process.wait(60)
    finally:
        terminal.close()


def test_ctrl_c_ends_one_answer_at_once(laptop: Laptop) -> None:
    process = subprocess.Popen(
        [BIN / "llmctl", "generate", "-m", "plain", "--max-new-tokens=3000", "Hello"],
        env=laptop.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert 130 == process.returncode


def loads(laptop: Laptop) -> dict[str, list[int]]:
    """Requests at each replica, by deployment."""
    header, *rows = [line.split() for line in laptop.llmctl("top", "--replicas").splitlines()]
    assert ["DEPLOYMENT", "REPLICA", "IN-FLIGHT"] == header
    found: dict[str, list[int]] = {}
    for deployment, _, number in rows:
        found.setdefault(deployment, []).append(int(number))
    return found


def test_top_shows_what_the_gateway_counts(laptop: Laptop) -> None:
    for _ in range(3):
        laptop.post("/v1/completions", {"model": "sim", "prompt": "x", "max_tokens": 1})
    text = laptop.llmctl("top", "--interval=0.5")
    header, *rows = text.splitlines()
    assert ["MODEL", "IN-FLIGHT", "REQ/S", "FAILED/S", "FIRST-BYTE", "REQUESTS", "FAILED"] == header.split()
    assert ["plain", "sim"] == [row.split()[0] for row in rows]
    (mine,) = [row.split() for row in rows if row.startswith("sim")]
    assert (True, "0") == (int(mine[5]) >= 3, mine[6])
    with laptop.flowing("sim") as traffic:
        laptop.wait("an answer", lambda: traffic.replicas, timeout=30)
        (busy,) = laptop.llmctl("top", "-m", "sim", "--interval=3", "--no-headers").splitlines()
        laptop.wait("a request at a replica", lambda: max(loads(laptop)["default/sim"]) > 0, timeout=30)
    assert {"default/plain", "default/sim"} == loads(laptop).keys()
    assert float(busy.split()[2]) > 0
    assert busy.split()[4].endswith("ms")


def test_port_forward_reaches_the_engine(laptop: Laptop) -> None:
    process = subprocess.Popen(
        [BIN / "llmctl", "port-forward", "md/sim"],
        env=laptop.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.fullmatch(r"Forwarding from 127\.0\.0\.1:(\d+) -> 127\.0\.0\.1:(\d+) \(sim-\w+\)\n", said)
        assert found is not None, said
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=20)
        with contextlib.closing(connection):
            for method, path, status in (
                ("GET", "/health", 200),
                ("GET", "/info", 200),
                ("POST", "/generate", 401),
            ):
                connection.request(method, path)
                answer = connection.getresponse()
                answer.read()
                assert (path, status) == (path, answer.status)
        process.send_signal(signal.SIGINT)
        assert 130 == process.wait(60)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("rep/nobody",), 209, "not found"),
        (("cl/local",), 202, "have no port"),
        (("md/sim", "70000"), 202, "no port"),
        (("md/sim", "8080:80"), 202, "give the local one alone"),
        ((), 202, "name what you mean"),
    ],
)
def test_port_forward_of_nonsense(laptop: Laptop, arguments: tuple[str, ...], code: int, words: str) -> None:
    found = run(laptop, "port-forward", *arguments)
    assert (code, True) == (found[0], words in found[2]), found


def revisions(laptop: Laptop) -> list[int]:
    mine = [each["spec"] for each in laptop.objects("rep") if each["spec"]["deployment"] == "roll"]
    return sorted(each["revision"] for each in mine)


def settled(laptop: Laptop, expected: list[int]) -> None:
    """What was replaced is gone a moment after the rollout is complete."""
    wait_for(f"replicas of {expected}", lambda: revisions(laptop) == expected, timeout=60)


def test_a_rollout_is_paused_resumed_undone_and_restarted(laptop: Laptop) -> None:
    """With real replicas: a pause holds a changed template back while scaling goes on, and what follows takes its place."""
    laptop.apply(simulator("roll", args=["--seed=1"]))
    laptop.llmctl("rollout", "status", "md/roll", "--timeout=60s")
    laptop.llmctl("rollout", "pause", "md/roll")
    laptop.apply(simulator("roll", args=["--seed=2"], replicas=2))
    settled(laptop, [1, 1])
    code, _, error = run(laptop, "rollout", "status", "md/roll", "--timeout=30s")
    assert (217, True) == (code, "is paused" in error)
    assert "DeploymentPaused" in laptop.llmctl("why", "md/roll")
    laptop.llmctl("rollout", "resume", "md/roll")
    assert "successfully rolled out" in laptop.llmctl("rollout", "status", "md/roll", "--timeout=60s")
    settled(laptop, [2, 2])
    assert "changed args" in laptop.llmctl("rollout", "history", "md/roll")
    laptop.llmctl("rollout", "undo", "md/roll")
    laptop.llmctl("rollout", "status", "md/roll", "--timeout=60s")
    settled(laptop, [3, 3])
    laptop.llmctl("rollout", "restart", "md/roll")
    laptop.llmctl("rollout", "status", "md/roll", "--timeout=60s")
    settled(laptop, [4, 4])
    history = laptop.llmctl("rollout", "history", "md/roll")
    assert re.search(r"3 +back to revision 1 .*\n4 +restarted", history), history
    laptop.llmctl("delete", "md", "roll")


def test_logs_of_a_deployment_over_a_rollout_and_after_it(laptop: Laptop) -> None:
    """The old replica's lines, the new one's, and then those of the one that is gone."""
    laptop.apply(simulator("talk"))
    laptop.wait_ready("talk")
    process = subprocess.Popen(
        [BIN / "llmctl", "logs", "-f", "md/talk"],
        env=laptop.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []

    def collect() -> None:
        assert process.stdout is not None
        lines.extend(iter(process.stdout.readline, ""))

    reader = threading.Thread(target=collect)
    reader.start()
    try:
        (old,) = [
            each["metadata"]["name"] for each in laptop.objects("rep") if each["spec"]["deployment"] == "talk"
        ]
        wait_for("its lines", lambda: any(line.startswith(f"[{old}] ") for line in lines), timeout=30)
        laptop.llmctl("rollout", "restart", "md/talk")
        laptop.llmctl("rollout", "status", "md/talk", "--timeout=60s")
        wait_for("its end", lambda: any(line.startswith(f"{old} has ended") for line in lines), timeout=60)

        def others() -> set[str]:
            return {line.partition("]")[0][1:] for line in lines if line.startswith("[talk-")} - {old}

        wait_for("lines of the new one", others, timeout=60)
        assert 1 == len(others())
        assert laptop.llmctl("logs", f"rep/{old}", "--since=1h")
        assert laptop.llmctl("logs", "md/talk", "--previous", "--tail=1").startswith(f"[{old}] ")
        laptop.llmctl("delete", "md", "talk")
        assert 0 == process.wait(60)
    finally:
        process.kill()
        process.communicate()
        reader.join(20)


def test_bench_measures_through_the_gateway_of_the_context(laptop: Laptop, tmp_path: Path) -> None:
    for api in ("chat", "tgi"):
        arguments = ("bench", "run", "-m", "sim", "-m", "plain")[: 4 if api == "tgi" else 6]
        code, text, error = run(
            laptop, *arguments, f"--api={api}", "--concurrency=1,2", "--requests=3", "--warm-up=0",
            "--lengths=8:5", f"--out={tmp_path / api}",
        )  # fmt: skip
        assert 0 == code, error
        models = ["sim", "sim"] if api == "tgi" else ["sim", "sim", "plain", "plain"]
        rows = [line.split() for line in text.splitlines()]
        assert [(model, "8:5", "0") for model in models] == [(row[0], row[1], row[4]) for row in rows[1:]]
        assert {"bench.json", "bench.csv", "bench.html", "bench.svg"} == {
            each.name for each in (tmp_path / api).iterdir()
        }
    code, _, error = run(laptop, "bench", "run", "-m", "nobody", "--requests=3")
    assert (209, True) == (code, "nobody does not answer" in error and "status 404" in error)
    code, _, error = run(laptop, "bench", "run", "-m", "plain", "--api=tgi")
    assert (207, True) == (code, "does not speak the dialect 'tgi'" in error)


def test_bench_startup_measures_every_step_and_leaves_nothing(laptop: Laptop, tmp_path: Path) -> None:
    before = {item["metadata"]["name"] for item in laptop.objects("md")}
    folder = tmp_path / "starts"
    code, text, error = run(
        laptop, "bench", "startup", "md/sim", "md/plain", "--rounds=1", f"--out={folder}"
    )  # fmt: skip
    assert 0 == code, error
    assert before == {item["metadata"]["name"] for item in laptop.objects("md")}
    header, *rows = [line.split() for line in text.splitlines()]
    names = [["sim", "no", "1"], ["plain", "no", "1"]]
    assert [*names, header[:3], *names] == [row[:3] for row in rows]
    for row in rows[:2]:
        steps = dict(zip(header[3:], map(float, row[3:]), strict=True))
        # One clock here, but for the moment in which the watch tells of the job: a local one may begin before that.
        inner = [steps[step] for step in ("REPLICA", "RUNNING", "STARTED", "LISTENING", "GENERATED", "READY")]
        assert inner == sorted(inner)
        assert 0 <= steps["REPLICA"] <= steps["SUBMITTED"] <= steps["ANSWERED"]
        assert steps["GENERATED"] <= steps["ANSWERED"]
    for words, wanted in (("rep/x", 202), ("md/nobody", 209), ("md", 202)):
        assert wanted == run(laptop, "bench", "startup", words)[0]


def test_bench_startup_that_is_interrupted_leaves_nothing(laptop: Laptop) -> None:
    def names() -> set[str]:
        return {item["metadata"]["name"] for item in laptop.objects("md")}

    before = names()
    process = subprocess.Popen(
        [BIN / "llmctl", "bench", "startup", "md/sim", "--rounds=50"],
        env=laptop.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for("a copy of the deployment", lambda: names() - before, timeout=60)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert 130 == process.returncode, error
    assert before == names()
