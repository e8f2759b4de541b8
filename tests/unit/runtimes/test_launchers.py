"""The small programs in front of engines: the key reaches the engine, and neither an argument nor the log; with programs that say what they get."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llmop.domain import placeholders
from llmop.domain.deployment import Template
from llmop.domain.profile import Profile
from llmop.domain.runtime import EngineCommand
from llmop.domain.site import DriverKind, Site
from llmop.manifest import admit, convert, load
from llmop.runtimes import builtin, render

KEY = "Sesame-0123_x"
SITE = Site(name="default", driver=DriverKind.SLURM, shared_dir="/shared")
TEMPLATE = Template(
    model_uri="file:///models/m",
    model_name="org/m",
    runtime="",
    image="/i.sif",
    args=("--last=it's $HOME", ""),
    gpus=2,
)
# A program that writes what it was given; the key is in its environment, or it is not.
SAYS_ARGUMENTS = 'for word; do printf "<%s>" "$word"; done; echo; echo "key: ${API_KEY-none}"'


def command(name: str) -> EngineCommand:
    (document,) = load.load(builtin.runtimes()[f"{name}.yaml"], f"{name}.yaml")
    runtime = convert.runtime(admit.admit(document.data, namespace=""))
    return render.engine_command(runtime, TEMPLATE, Profile(name="a100", gres="gpu:a100"), SITE)


class Node:
    """A directory with programs, and what the agent would fill in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scratch = folder / "scratch dir"
        self.scratch.mkdir()
        self.key = folder / "key"
        self.key.write_text(f"{KEY}\n")
        self.programs = folder / "programs"
        self.programs.mkdir()
        self.environment = {"PATH": f"{self.programs}:/usr/bin:/bin"}

    def program(self, name: str, body: str, interpreter: str = "/bin/sh") -> None:
        path = self.programs / name
        path.write_text(f"#!{interpreter}\n{body}\n")
        path.chmod(0o700)

    def fill(self, text: str) -> str:
        words = {
            "port": "40001",
            "host": "10.0.0.1",
            "scratch": str(self.scratch),
            "sockets": "/tmp/u",
            "apiKeyFile": str(self.key),
        }
        return "".join(
            part if isinstance(part, str) else f"40001/{part.argument}" if part.argument else words[part.name]
            for part in placeholders.parse(text)
        )

    def start(self, engine: EngineCommand, **more: str) -> "subprocess.Popen[str]":
        environment = {
            **self.environment,
            **{name: self.fill(value) for name, value in engine.env.items()},
            **more,
        }
        return subprocess.Popen(
            [self.fill(text) for text in engine.argv],
            env=environment,
            cwd=self.scratch,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, engine: EngineCommand, **more: str) -> tuple[int, str]:
        with self.start(engine, **more) as process:
            output, _ = process.communicate(timeout=60)
        return process.returncode, output


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def after(argv: tuple[str, ...], word: str) -> list[str]:
    """What follows the name of the program in the argv of `sh -c`."""
    return list(argv[argv.index(word) + 1 :])


# --- Text-Generation-Inference


def test_tgi_gets_no_name_that_its_launcher_would_read_as_a_flag() -> None:
    result = command("tgi")

    assert (
        not {"PORT", "HOSTNAME", "MASTER_PORT", "MASTER_ADDR", "REVISION", "DTYPE", "API_KEY"}
        & result.env.keys()
    )
    assert "" == result.api_key_env


def test_tgis_router_gets_the_key_from_the_file_and_no_process_has_it_among_its_arguments(
    node: Node,
) -> None:
    """TGI's launcher would hand a key of its own on as `--api-key`; here a launcher and a router that print what they get."""
    node.program(
        "text-generation-launcher",
        'echo "launcher: ${API_KEY-none}"; for word; do printf "<%s>" "$word"; done\n'
        "exec text-generation-router --port 1",
    )
    node.program("text-generation-router", 'echo; echo "router: $API_KEY $*"')
    engine = command("tgi")

    given = "".join(f"<{node.fill(word)}>" for word in after(engine.argv, "tgi")[2:])

    assert (0, f"launcher: none\n{given}\nrouter: {KEY} --port 1\n") == node.run(engine)


def test_tgis_router_does_not_start_without_a_key(node: Node) -> None:
    node.program("text-generation-launcher", "exec text-generation-router")
    node.program("text-generation-router", "echo started")
    node.key.write_text("")

    assert (78, "") == node.run(command("tgi"))


# --- vLLM


def test_vllm_is_started_with_its_arguments_and_a_guard_that_asks_for_the_key(node: Node) -> None:
    """The program in vllm's place loads the guard as vLLM loads it, by the name in --middleware, and sends it requests."""
    node.program(
        "vllm",
        """
import asyncio, importlib, json, sys

(name,) = [word.partition("=")[2] for word in sys.argv if word.startswith("--middleware=")]
module, _, attribute = name.rpartition(".")


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})


guard = getattr(importlib.import_module(module), attribute)(app)


async def status(path, *keys, kind="http"):
    sent = []

    async def send(message):
        sent.append(message)

    headers = [(b"authorization", key.encode()) for key in keys]
    await guard({"type": kind, "path": path, "headers": headers}, None, send)
    return sent[0].get("status") or sent[0]["code"]


async def main():
    good = "Bearer KEY"
    return {
        "argv": sys.argv[1:],
        "open": [await status(path) for path in ("/health", "/metrics")],
        "without": [await status(path) for path in ("/invocations", "/tokenize", "/v1/models", "/health/x")],
        "wrong": [await status("/invocations", key) for key in ("Bearer x", "KEY", good + "x", "")],
        "twice": await status("/invocations", "Bearer x", good),
        "right": await status("/invocations", good),
        "websocket": [await status("/v1/realtime", kind="websocket"), await status("/v1/x", good, kind="websocket")],
    }


print(json.dumps(asyncio.run(main())))
""".replace("KEY", KEY),
        interpreter=sys.executable,
    )
    engine = command("vllm")
    assert "VLLM_API_KEY" == engine.api_key_env  # the agent sets it for the engine alone

    status, output = node.run(engine, VLLM_API_KEY=KEY)

    assert 0 == status, output
    assert {
        "argv": ["serve", *(node.fill(word) for word in after(engine.argv, "vllm")[1:])],
        "open": [200, 200],
        "without": [401] * 4,
        "wrong": [401] * 4,
        "twice": 401,
        "right": 200,
        "websocket": [1008, 200],
    } == json.loads(output)
    assert KEY not in " ".join(engine.argv)


def test_vllm_does_not_start_without_a_key(node: Node) -> None:
    node.program("vllm", "echo started")

    assert (78, "") == node.run(command("vllm"))
    assert (78, "") == node.run(command("vllm"), VLLM_API_KEY="")


# --- SGLang


def test_sglang_gets_the_key_within_the_process_and_its_log_shows_none(node: Node) -> None:
    """The module in sglang's place says what it got, logs it as SGLang does, and starts a child as SGLang does."""
    package = node.folder / "packages" / "sglang"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "launch_server.py").write_text(
        """
import json, logging, multiprocessing, pathlib, sys


def child(queue):
    queue.put([sys.argv[-1], pathlib.Path("/proc/self/cmdline").read_text()])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="log: %(message)s")
    logging.info(f"server_args={sys.argv}")
    logging.info("key %s", sys.argv[-1])
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    print(json.dumps({"argv": sys.argv[1:], "child": queue.get(), "cmdline": pathlib.Path("/proc/self/cmdline").read_text()}))
    process.join()
"""
    )
    node.program("python3", f'exec {sys.executable} "$@"')
    engine = command("sglang")

    status, output = node.run(engine, PYTHONPATH=str(package.parent))

    assert 0 == status, output
    *logged, last = output.splitlines()
    said = json.loads(last)
    given = [node.fill(word) for word in engine.argv[4:]]
    assert [*given, f"--api-key={KEY}"] == said["argv"]
    assert f"--api-key={KEY}" == said["child"][0]
    assert KEY not in said["child"][1] + said["cmdline"]
    assert ["log: key --api-key=***"] == logged[1:]
    assert logged[0].endswith("'--api-key=***']")


def test_sglang_does_not_start_without_a_key(node: Node) -> None:
    node.program("python3", f'exec {sys.executable} "$@"')
    node.key.write_text("\n")

    assert (78, "") == node.run(command("sglang"))


# --- Text Embeddings Inference


def test_tei_takes_the_key_from_its_environment_and_its_log_shows_none(node: Node) -> None:
    node.program("text-embeddings-router", f'{SAYS_ARGUMENTS}; echo "twice $API_KEY$API_KEY" >&2; exit 3')
    engine = command("tei")
    assert "API_KEY" == engine.api_key_env

    status, output = node.run(engine, API_KEY=KEY)

    given = "".join(f"<{node.fill(word)}>" for word in after(engine.argv, "tei")[1:])
    assert (3, f"{given}\nkey: ***\ntwice ******\n") == (status, output)


@pytest.mark.parametrize(("capability", "generation"), [("8.0", 80), ("8.9", 80), ("9.0", 90), ("12.0", 120)])
def test_an_image_of_tei_for_all_gpus_has_a_router_for_this_one(
    node: Node, capability: str, generation: int
) -> None:
    node.program("nvidia-smi", f"echo {capability}; echo 1.0")
    node.program(f"text-embeddings-router-{generation}", "echo mine")

    assert (0, "mine\n") == node.run(command("tei"), API_KEY=KEY)


def test_tei_hears_the_signal_that_the_first_process_gets_and_may_finish(node: Node) -> None:
    node.program(
        "text-embeddings-router",
        "trap 'echo asked to end; exit 5' TERM\necho up\nwhile :; do sleep 0.05; done",
    )
    with node.start(command("tei"), API_KEY=KEY) as process:
        assert process.stdout is not None
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        assert "up\n" == process.stdout.readline()
        os.kill(process.pid, signal.SIGTERM)
        assert "asked to end\n" == process.stdout.read()
        assert 5 == process.wait()
        watchdog.cancel()


def test_tei_does_not_start_without_a_key(node: Node) -> None:
    node.program("text-embeddings-router", "echo started")

    assert (78, "") == node.run(command("tei"))
