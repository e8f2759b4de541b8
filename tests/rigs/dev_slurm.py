"""The program behind hack/dev-slurm: a private Slurm for a person, which survives the shell that started it."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tests.rigs.errors import RigError
from tests.rigs.leftovers import end, is_used
from tests.rigs.release import PATH
from tests.rigs.slurm import SlurmRig

DIRECTORY = Path("/var/tmp/llmop-dev-slurm")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="hack/dev-slurm",
        description="A private, real Slurm of several nodes with fake GPUs on this host.",
    )
    parser.add_argument("action", choices=["up", "down", "status"])
    parser.add_argument("--nodes", type=int, default=4, help="how many nodes (up; default 4)")
    parser.add_argument("--dir", type=Path, default=DIRECTORY, help=f"where it lives (default {DIRECTORY})")
    parser.add_argument(
        "--user", default="llmoptest", help="the ordinary account to make (up; default llmoptest)"
    )
    options = parser.parse_args(argv)
    directory = options.dir.resolve()
    try:
        if options.action == "up":
            SlurmRig(nodes=options.nodes, directory=directory, user=options.user, detached=True).start()
            print(
                f"# {options.nodes} nodes are idle. Submit as an ordinary account, for example {options.user}."
            )
            print("# Clients find the munge socket in that file (AuthInfo); nothing else needs to be set.")
            print(f"export SLURM_CONF={directory}/etc/slurm.conf")
        elif options.action == "down":
            end(directory)
            print(f"# ended, {directory} is removed")
        else:
            return status(directory)
    except RigError as error:
        print(f"dev-slurm: {error}", file=sys.stderr)
        return 1
    return 0


def status(directory: Path) -> int:
    if not (directory / "rig.json").exists() or not is_used(directory):
        print(f"# no private Slurm runs in {directory}")
        return 1
    print(f"export SLURM_CONF={directory}/etc/slurm.conf", flush=True)
    env = {"PATH": PATH, "SLURM_CONF": f"{directory}/etc/slurm.conf"}
    return max(
        subprocess.run(command, env=env, timeout=60, check=False).returncode
        for command in (["sinfo"], ["squeue"])
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
