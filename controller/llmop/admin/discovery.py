"""Asks the Slurm that this process's commands reach about itself, and writes manifests for review."""

from collections.abc import Mapping

from llmop.cluster.slurm import discover, process
from llmop.domain.errors import NeedsUser
from llmop.manifest import proposal
from llmop.planner import discovery

QUERY_TIMEOUT_S = 30.0


async def propose(environ: Mapping[str, str], cluster: str, shared_dir: str) -> Mapping[str, str]:
    """File names and texts. Raises NeedsUser when there is no Slurm to ask."""
    survey = await discover.discover(process.Account.own(environ), QUERY_TIMEOUT_S)
    if not survey.version:
        why = "; ".join(survey.unknown) or "scontrol show config does not say SLURM_VERSION"
        raise NeedsUser(
            "NoSlurm",
            f"no Slurm answers on the controller's host: {why}. Start the controller where scontrol works, with PATH and SLURM_CONF set",
        )
    return proposal.files(discovery.propose(survey, cluster, shared_dir))
