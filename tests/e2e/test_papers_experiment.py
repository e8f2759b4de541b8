"""The experiment of the paper as its page has it, with few requests, and what is said of starts beside what Slurm has written down."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.e2e.installation import Installation
from tests.pages import transcript

from llmop.cli.bench import results, startup
from llmop.domain import times

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "the-papers-experiment.md"


def test_the_papers_experiment_does_what_its_page_shows(
    install: Callable[..., Installation], engine_sif: Path
) -> None:
    """Each model answers; every step of a start is there, in order, and Slurm's own moments of the job lie where they belong."""
    site = install()
    work = site.directory / "work"
    site.as_account(["mkdir", str(work)])
    shutil.copytree(ROOT / "manifests", work / "manifests")
    site.as_account(["sh", "-c", f"umask 077; cat > {work}/key"], text=site.key)
    site.run(
        ["llmctl", "config", "set-context", "rig", "--controller", site.address(), "--key-file", f"{work}/key",
         "--gateway", f"http://127.0.0.1:{site.port}"]
    )  # fmt: skip
    site.run(["llmctl", "config", "use-context", "rig"])
    words = {
        "--lengths 128:64": "--lengths 128:16",
        "--duration 10s --warm-up 5s": "--concurrency 2 --requests 2 --warm-up 0",
        "128:64 ...": "128:16 ...",
        "--rounds 5": "--rounds 1",
        "/project/nlp/images/python.sif": str(engine_sif),
    }
    for part in transcript.read(PAGE.read_text()):
        if isinstance(part, transcript.File):
            site.as_account(["tee", str(work / part.name)], text=replaced(part.text, words))
            continue
        command = f"cd {work} && {site.venv}/bin/{replaced(part.command, words)}"
        printed = site.as_account(["sh", "-c", command])
        shown = tuple(replaced(line, words) for line in part.shown)
        assert not (missed := transcript.missing(shown, printed)), (
            f"{part.command}: no {missed!r} in\n{printed}"
        )
    slow = ("llama-1b", "llama-3b", "llama-8b", "llama-70b", "llama-70b-fifo")
    found = [results.read(work / name / "bench.json").figures for name in slow]
    assert [(name, True, 0) for name in slow] == [
        (each.cell.model, each.answered >= 2, each.failed) for (each,) in found
    ]
    # By calculation the 15 steps after the first token of 16 take 2.7 ms each with 1B and 28.5 ms with 70B.
    assert found[0][0].e2e.min >= 15 * 0.0027
    assert found[3][0].e2e.min >= 15 * 0.0285
    starts = results.read(work / "starts" / "bench.json").startups
    assert [("bare", ""), ("contained", str(engine_sif))] == [
        (each.deployment, each.image) for each in starts
    ]
    assert 2 == len({each.job for each in starts})
    for each in starts:
        print(each.deployment, json.dumps(each.steps))
        applied_at = times.from_rfc3339(each.at)
        at = {step: applied_at + seconds for step, seconds in each.steps.items()}
        inner = [at[step] for step in ("running", "started", "listening", "generated", "ready")]
        assert set(startup.STEPS) == at.keys()
        assert inner == sorted(inner)
        assert at["started"] <= at["answered"]
        # Slurm writes whole seconds, rounded down.
        submitted, started = slurms_moments(site, each.job)
        assert int(at["replica"]) <= submitted <= at["submitted"]
        assert submitted <= started <= at["running"]
    site.wait("the queue to be empty", lambda: not site.jobs(), timeout=60)


def replaced(text: str, words: dict[str, str]) -> str:
    for word, other in words.items():
        text = text.replace(word, other)
    return text


def slurms_moments(site: Installation, job: str) -> tuple[float, float]:
    """When Slurm took the job and when it started it, epoch seconds."""
    record = site.as_account(["env", "SLURM_TIME_FORMAT=%s", "scontrol", "--oneliner", "show", "job", job])
    fields = dict(word.split("=", 1) for word in record.split() if "=" in word)
    return float(fields["SubmitTime"]), float(fields["StartTime"])
