"""What llmctl bench says of a start on a real Slurm, beside what Slurm has written down itself."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

from tests.e2e.installation import Installation, simulator

from llmop.cli.bench import results, startup
from llmop.domain import times


def test_the_steps_of_a_start_are_those_that_slurm_has_written_down(
    install: Callable[..., Installation], engine_sif: Path
) -> None:
    """Without a container and in one: every step is there, in order, and Slurm's own moments of the job lie where they belong."""
    site = install()
    site.apply(simulator("bare", replicas=0), simulator("contained", replicas=0, image=engine_sif))
    folder, key = site.directory / "starts", site.directory / "key"
    site.as_account(["sh", "-c", f"umask 077; cat > {shlex.quote(str(key))}"], text=site.key)
    site.llmctl(
        "bench", "startup", "md/bare", "md/contained", "--rounds=1", f"--out={folder}",
        f"--gateway=http://127.0.0.1:{site.port}", f"--key-file={key}",
    )  # fmt: skip
    found = results.read(folder / "bench.json").startups
    assert [("bare", ""), ("contained", str(engine_sif))] == [(each.deployment, each.image) for each in found]
    assert 2 == len({each.job for each in found})
    for each in found:
        print(each.deployment, json.dumps(each.steps))
        applied_at = times.from_rfc3339(each.at)
        at = {step: applied_at + seconds for step, seconds in each.steps.items()}
        node = [at[step] for step in ("running", "started", "listening", "generated", "ready")]
        assert set(startup.STEPS) == at.keys()
        assert node == sorted(node)
        assert at["started"] <= at["answered"]
        # Slurm writes whole seconds, rounded down.
        submitted, started = slurms_moments(site, each.job)
        assert int(at["replica"]) <= submitted <= at["submitted"]
        assert submitted <= started <= at["running"]
    site.wait("the queue to be empty", lambda: not site.jobs(), timeout=60)
    assert ["bare", "contained"] == sorted(
        row.object.metadata.name for row in site.client().list("ModelDeployment", "default")[0]
    )


def slurms_moments(site: Installation, job: str) -> tuple[float, float]:
    """When Slurm took the job and when it started it, epoch seconds."""
    record = site.as_account(["env", "SLURM_TIME_FORMAT=%s", "scontrol", "--oneliner", "show", "job", job])
    fields = dict(word.split("=", 1) for word in record.split() if "=" in word)
    return float(fields["SubmitTime"]), float(fields["StartTime"])
