"""What is handed to sbatch: the batch script, and the command line."""

import re
import shlex
from collections.abc import Mapping, Sequence

from llmop.domain.job import JobRequest

# Set here for every job; a request that names one of them, or an abbreviation that getopt would take for it, is refused.
_OWN_OPTIONS = frozenset(
    {
        *("parsable", "no-requeue", "requeue", "dependency", "job-name", "open-mode", "output", "error"),
        *(
            "propagate",
            "kill-on-invalid-dep",
            "signal",
            "chdir",
            "wrap",
            "wait",
            "array",
            "test-only",
            "hold",
        ),
    }
)
_OPTION = re.compile(r"[a-z][a-z0-9-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_START = ("#!/bin/bash", "set -u", "umask 077")
_MOST_NOTICE_S = 65535  # of --signal, sbatch(1)


def batch_script(
    *,
    python: str,
    agent: str,
    config: str,
    prelude: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> str:
    """The script of a replica: prepare, then become the agent.

    `exec` makes the agent the direct child of slurmstepd, which sends signals to direct children only under some
    process trackers (proctrack/cgroup). `python` is a command or a path, `agent` and `config` are absolute paths;
    `prelude` is the site's shell lines, taken as they are; `environment` is exported after it. Raises ValueError for
    what a script cannot hold.
    """
    _command(python)
    for field, path in (("agent", agent), ("config", config)):
        _printable(field, path)
        if not path.startswith("/"):
            raise ValueError(f"{field}: {path!r} is not an absolute path")
    lines = [
        *_START,
        "# srun refuses to work with a token, and calls inside the cluster must not go through a proxy.",
        "unset SLURM_JWT http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY",
        "# Since 22.05 srun no longer takes --cpus-per-task from the job.",
        'export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"',
    ]
    lines += _prepared(prelude)
    for name, value in (environment or {}).items():
        _printable(f"environment[{name}]", value)
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"environment: {name!r} is no name of a variable")
        lines.append(f"export {name}={shlex.quote(value)}")
    lines.append(shlex.join(["exec", python, "-I", agent, "--config", config]))
    return "\n".join(lines) + "\n"


def staging_script(*, python: str, order: str, prelude: Sequence[str] = ()) -> str:
    """The script of a job that stages an artifact: prepare, then become the stager. What proxies the site has set stay set.

    `python` is one that has llmop, `order` what `artifacts.order.Order.dump` gives. Raises ValueError for what a script cannot hold.
    """
    _command(python)
    _printable("order", order)
    stager = ["exec", python, "-I", "-m", "llmop.artifacts.worker", "--job", order]
    return "\n".join([*_START, *_prepared(prelude), shlex.join(stager)]) + "\n"


def _prepared(prelude: Sequence[str]) -> list[str]:
    for line in prelude:
        _printable("prelude", line)
    # Shell start-up files of sites often read variables that are not set.
    return ["set +u", *prelude, "set -u"] if prelude else []


def sbatch_argv(request: JobRequest) -> list[str]:
    """The command line that submits the request; the script goes to its standard input.

    Options keep their order; `--time` is added from `time_limit_s` (minutes, rounded up) when no option says it.
    Raises ValueError for an option that llmop sets itself, and for values that a command line cannot hold.
    """
    _one_line("name", request.name)
    _one_line("directory", request.directory)
    if not request.directory.startswith("/"):
        raise ValueError(f"directory: {request.directory!r} is not an absolute path")
    argv = [
        "sbatch",
        "--parsable",
        "--no-requeue",
        *(["--dependency=singleton"] if request.singleton else []),
        f"--job-name={request.name}",
        "--open-mode=append",
        # % begins a pattern in file names (sbatch(1), "filename pattern").
        f"--output={request.directory.replace('%', '%%')}/job.log",
        "--propagate=NONE",
        "--kill-on-invalid-dep=yes",
        f"--chdir={request.directory}",
    ]
    if request.signal_before_end_s:
        argv.append(f"--signal=B:USR1@{min(request.signal_before_end_s, _MOST_NOTICE_S)}")
    if request.held:
        argv.append("--hold")
    names = {name for name, _ in request.options}
    if request.comment:
        if "comment" in names:
            raise ValueError(
                "options: 'comment' is needed by llmop here, because this site changes the names of jobs; leave it out"
            )
        _one_line("comment", request.comment)
        argv.append(f"--comment={request.comment}")
    if request.time_limit_s and "time" not in names:
        argv.append(f"--time={-(-request.time_limit_s // 60)}")
    for name, value in request.options:
        if not _OPTION.fullmatch(name):
            raise ValueError(f"options: {name!r} is no long option of sbatch; write it without dashes")
        own = next((option for option in sorted(_OWN_OPTIONS) if option.startswith(name)), "")
        if own:
            raise ValueError(f"options: {name!r} is set by llmop itself (--{own}); leave it out")
        _one_line(f"options[{name}]", value)
        argv.append(f"--{name}={value}" if value else f"--{name}")
    return argv


def _command(python: str) -> None:
    _printable("python", python)
    if not python or python.startswith("-"):
        raise ValueError(f"python: {python!r} is no command; give a name or an absolute path")


def _printable(field: str, value: str) -> None:
    """sbatch refuses scripts with DOS line ends, and no script holds NUL."""
    for character, name in (("\0", "NUL"), ("\r", "carriage return")):
        if character in value:
            raise ValueError(f"{field}: {value!r} contains a {name} character; remove it")


def _one_line(field: str, value: str) -> None:
    _printable(field, value)
    if "\n" in value:
        raise ValueError(f"{field}: {value!r} contains a line break; remove it")
