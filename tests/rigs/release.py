"""Which Slurm the rigs run: the machine's, or another release beside it."""

import os

# A folder that hack/install-slurm-release has made; "" = the machine's Slurm.
RELEASE = os.environ.get("LLMOP_SLURM", "")
PATH = f"{RELEASE}/bin:" * bool(RELEASE) + "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
