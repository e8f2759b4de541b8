"""Every llmctl command that a page shows is one that llmctl takes: each is run here, against a controller with a deployment in it.

What the tutorial's commands print is checked by tests/integration/test_docs.py. Advice that llmctl itself prints is tried too.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.cli.conftest import NOW, World
from tests.integration.cli.test_rollout import rolled_out

from llmop.cli import advice

ROOT = Path(__file__).parents[3]
# Its commands build on each other: tests/e2e/test_first_hour.py runs them as a new account does.
WHOLE = ROOT / "docs" / "howto" / "first-hour.md"
PAGES = sorted({ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")} - {WHOLE})
# A command on a line of its own, after a prompt, or in code; up to what belongs to the shell.
_COMMAND = re.compile(r"(?:^\$ (?:until )?|`)llmctl (?P<rest>[^`\n|;&<>]*)", re.MULTILINE)
# A command in a sentence: its words up to those of the sentence.
_ADVISED = re.compile(
    r"llmctl (?P<rest>(?:logs|rollout \w+|describe|delete|get)"
    r"(?: (?:--?[a-z]+(?:=[a-z]+)?|[a-z]+/[a-z-]+|(?:cl|md|rep) [a-z-]+|sr,rp,cl))+)"
)
# What talks to a gateway, changes contexts, or goes on until somebody stops it, is run by tests/integration/test_everyday.py,
# test_docs.py, test_howto_pages.py and workloads/test_page.py, and by tests/e2e/test_rig_pages.py.
ELSEWHERE = ("batch", "bench", "chat", "config", "generate", "top", "port-forward")
# What stands for a name, and what is in the test's controller.
NAMES = {
    "NAME": "chat",
    "md/tiny": "md/chat",
    "md/simulator": "md/chat",
    "md/sim": "md/chat",
    "tb/panel": "md/chat",
    "TYPE": "md",
}


def commands() -> Iterator[tuple[str, str]]:
    """(page, what stands behind `llmctl`), each once."""
    seen = set()
    for page in PAGES:
        for found in _COMMAND.finditer(page.read_text()):
            rest = found["rest"].strip()
            if rest and not rest.startswith(("[", "#")) and rest not in seen:
                seen.add(rest)
                yield page.relative_to(ROOT).as_posix(), rest


def advised() -> Iterator[str]:
    """The commands in the advice of `llmctl why`."""
    texts = [
        *advice.OF_CONDITIONS.values(),
        *advice.OF_ENDS.values(),
        *advice.OF_PHASES.values(),
        *(words for _, words in advice.OF_WAITING),
        advice.OF_DELETION,
    ]
    for text in texts:
        filled = text.format(name="chat", cluster="default", replica="chat-aaaaa", node="n1", job="17")
        for found in _ADVISED.finditer(filled):
            yield found["rest"].strip()


def ready(world: World) -> None:
    rolled_out(world)
    world.replica("chat-aaaaa", phase="Ready", ready=True, endsAt="2025-10-09T20:53:20Z")
    log = world.directory / "shared" / "replicas" / "chat-aaaaa"
    log.mkdir(parents=True)
    for name in ("engine.log", "job.log"):
        (log / name).write_text("a line\n")
    (log / "engine.log.times").write_text(f"{NOW - 50:.0f} 0 start\n{NOW - 40:.0f} 7 start\n")


def arguments(rest: str, world: World) -> list[str]:
    words: list[str] = []
    for word in shlex.split(rest, comments=True):
        for name, known in NAMES.items():
            word = word.replace(name, known)
        word = word.replace("rep/chat", "rep/chat-aaaaa") if word == "rep/chat" else word
        word = word.replace("cl/chat", "cl/default")
        if word.endswith((".yaml", ".yml")):
            path = world.directory / Path(word).name
            if words[-1:] == ["-o"]:
                words.append(str(path))
                continue
            manifest = (ROOT / "manifests" / "runtimes" / "simulator.yaml").read_text()
            path.write_text(manifest.replace("name: simulator", f"name: {path.stem}"))
            word = str(path)
        words.append(word)
    return words


def test_there_are_commands_on_the_pages() -> None:
    assert len(list(commands())) > 25


@pytest.mark.parametrize(
    ("page", "rest"), [pytest.param(page, rest, id=f"{page}: {rest}") for page, rest in commands()]
)
def test_a_command_of_a_page_is_understood(page: str, rest: str, world: World) -> None:
    del page
    words = arguments(rest, world)
    follows = [word for word in words if word in ("-w", "-f", "--follow", "--watch")]
    is_named_only = (len(words) == 1 and words[0] != "events") or (
        words[:1] == ["rollout"] and len(words) == 2
    )
    if is_named_only or words[0] in ELSEWHERE or (follows and words[0] in ("get", "logs", "events")):
        words = [*words[:2], "--help"] if words[0] == "rollout" else [words[0], "--help"]
    if words[0] == "delete":
        words.append("--no-wait")  # nobody reconciles here
    if words[0] == "wait":
        words = [word for word in words if not word.startswith("--timeout")]
    if words[0] == "wait" or "--wait" in words:
        words.append("--timeout=0")  # nobody reconciles here
    ready(world)
    if words[:2] == ["rollout", "resume"]:
        assert 0 == world.llmctl("rollout", "pause", "md/chat").code
    if words[0] == "autoscale" and "--off" in words:
        assert 0 == world.llmctl("autoscale", "md/chat", "--max=2").code
    outcome = world.llmctl(*words)
    # 1 is a difference; 208 and 217 are waits for what this controller never does.
    assert outcome.code in (0, 1, 208, 217) or "not found" in outcome.stderr, outcome


@pytest.mark.parametrize("rest", sorted(set(advised())))
def test_a_command_that_is_advised_works(rest: str, world: World) -> None:
    ready(world)
    words = [word for word in rest.split() if word != "-f"]
    if words[0] == "delete":
        words.append("--no-wait")
    if rest.startswith("rollout resume"):
        assert 0 == world.llmctl("rollout", "pause", "md/chat").code
    outcome = world.llmctl(*words)
    assert 0 == outcome.code, outcome
