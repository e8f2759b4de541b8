"""From a replica to the job that runs it: batch script, sbatch options and replica.json."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

from llmop.cluster.slurm import script
from llmop.domain import deployment, fences, job, profile, replica, runtime, site
from llmop.reconciler import submit
from llmop.runtimes import options, render
from llmop.store import interface

CONTROLLER_WAIT_S = 30
SIGNAL_MARGIN_S = 90  # Slurm's own USR1 comes this long before the drain has to begin
ROLLOVER_MARGIN_S = 120


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Installation:
    """What is the same for all replicas of a cluster: the six characters, the agent's path, the CA of the agent channel (PEM)."""

    id: str
    agent: str
    ca: str


def prepared(
    installation: Installation,
    each: replica.Replica,
    ledger: interface.Ledger,
    template: deployment.Template,
    engine: runtime.Runtime,
    resource_profile: profile.Profile,
    where: site.Site,
    holding: fences.Fences = fences.STANDARD,
) -> submit.Prepared:
    """The submission of a replica, with the fences that hold at its site."""
    directory = f"{where.shared_dir}/replicas/{each.name}"
    text = script.batch_script(
        python=where.python,
        agent=installation.agent,
        config=f"{directory}/replica.json",
        prelude=where.prelude,
    )
    request = job_request(each.submission.job_name, directory, text, template, resource_profile, holding)
    return submit.Prepared(
        request=request,
        config=replica_json(installation, each, ledger, template, engine, resource_profile, where),
        script_hash=hashlib.sha256(text.encode()).hexdigest()[:16],
    )


def job_request(
    name: str,
    directory: str,
    text: str,
    template: deployment.Template,
    resource_profile: profile.Profile,
    holding: fences.Fences,
) -> job.JobRequest:
    """The job of a replica of `template` as it is submitted; `text` is its script."""
    time_limit_s = options.time_limit_s(template, resource_profile)
    signal_s = template.termination_grace_s + SIGNAL_MARGIN_S
    return job.JobRequest(
        name=name,
        options=options.options(template, resource_profile),
        script=text,
        directory=directory,
        time_limit_s=time_limit_s,
        signal_before_end_s=signal_s if not time_limit_s or signal_s < time_limit_s // 2 else 0,
        comment=name if holding.identity is fences.Identity.COMMENT else "",
        singleton=holding.singleton,
    )


def replica_json(
    installation: Installation,
    each: replica.Replica,
    ledger: interface.Ledger,
    template: deployment.Template,
    engine: runtime.Runtime,
    resource_profile: profile.Profile,
    where: site.Site,
) -> Mapping[str, Any]:
    """The configuration of the agent (docs/reference/agent-channel.md). Holds secrets: for a 0600 file only."""
    command = render.engine_command(engine, template, resource_profile, where)
    return {
        "version": 1,
        "installation": installation.id,
        "replica": {
            "uid": each.uid,
            "name": each.name,
            "namespace": each.namespace,
            "jobName": each.submission.job_name,
        },
        "sharedDir": where.shared_dir,
        "dir": f"{where.shared_dir}/replicas/{each.name}",
        "token": ledger.secrets.agent_token,
        "apiKey": ledger.secrets.api_key,
        "ca": installation.ca,
        "controllerWait": CONTROLLER_WAIT_S,
        "gpus": template.gpus,
        "terminationGrace": template.termination_grace_s,
        "rolloverMargin": ROLLOVER_MARGIN_S,
        "engine": {
            "container": dict(command.container),
            "argv": list(command.argv),
            "env": dict(command.env),
            "envFiles": list(command.env_files),
            "ports": list(command.ports),
            "cwd": command.cwd,
            "requires": list(command.requires),
            "health": dict(command.health),
            "warmup": dict(command.warmup) if command.warmup is not None else None,
            "metrics": dict(command.metrics) if command.metrics is not None else None,
            "startupTimeout": command.startup_timeout_s,
            "maxRestarts": command.max_restarts,
            "stop": dict(command.stop),
            "apiKeyEnv": command.api_key_env,
        },
    }
