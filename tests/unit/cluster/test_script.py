"""The batch script and the command line hold whatever text they are given, or refuse it."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from tests.texts import HOSTILE

from llmop.cluster.slurm.script import batch_script, sbatch_argv, staging_script
from llmop.domain.job import JobRequest


def script(**changes: object) -> str:
    usual: dict[str, object] = {
        "python": "python3",
        "agent": "/s/agent/ab.py",
        "config": "/s/replicas/x/replica.json",
    }
    return batch_script(**{**usual, **changes})  # type: ignore[arg-type]


def test_the_script_prepares_and_becomes_the_agent() -> None:
    lines = script(prelude=["module load apptainer", "export SITE=1"]).splitlines()
    assert "#!/bin/bash" == lines[0]
    assert ["set -u", "umask 077"] == lines[1:3]
    assert ["set +u", "module load apptainer", "export SITE=1", "set -u"] == lines[-5:-1]
    assert "exec python3 -I /s/agent/ab.py --config /s/replicas/x/replica.json" == lines[-1]


def run(text: str, directory: Path, **variables: str) -> list[str]:
    """What the agent of the script gets, when a stand-in for python writes its arguments down; NUL-separated."""
    stand_in = directory / "python"
    stand_in.write_text(
        '#!/bin/bash\nprintf "%s\\0" "$@" "$(umask)" "${VALUE-unset}" "${http_proxy-unset}" > "$OUT"\n'
    )
    stand_in.chmod(0o755)
    result = directory / "result"
    environment = {"PATH": f"{directory}:/usr/bin:/bin", "OUT": str(result), **variables}
    subprocess.run(
        ["bash", "-s"],
        input=text.encode(),
        env=environment,
        check=True,
        cwd=directory,
        capture_output=True,
        timeout=30,
    )
    assert not (directory / "pwned").exists()
    return result.read_bytes().decode().split("\0")[:-1]


@pytest.mark.parametrize("value", HOSTILE)
def test_an_order_reaches_the_stager_unchanged_and_proxies_of_the_site_stay(
    value: str, tmp_path: Path
) -> None:
    text = staging_script(python="python", order=value, prelude=["export VALUE=of-the-prelude"])
    assert [
        "-I",
        "-m",
        "llmop.artifacts.worker",
        "--job",
        value,
        "0077",
        "of-the-prelude",
        "http://proxy",
    ] == run(text, tmp_path, http_proxy="http://proxy")


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_values_reach_the_agent_unchanged(value: str, tmp_path: Path) -> None:
    text = script(python="python", agent=f"/{value}", config=f"/{value}/c", environment={"VALUE": value})
    assert ["-I", f"/{value}", "--config", f"/{value}/c", "0077", value, "unset"] == run(
        text, tmp_path, http_proxy="http://proxy"
    )


def test_a_prelude_may_read_variables_that_are_not_set(tmp_path: Path) -> None:
    text = script(python="python", prelude=['test -z "$NOBODY_SET_THIS"'])
    assert "-I" == run(text, tmp_path)[0]


@pytest.mark.parametrize("value", HOSTILE)
def test_shellcheck_finds_nothing_in_a_script(value: str, tmp_path: Path) -> None:
    file = tmp_path / "script"
    text = script(
        agent=f"/{value}", config=f"/{value}/c", prelude=["module load a"], environment={"VALUE": value}
    )
    file.write_text(text, encoding="utf-8")
    # SC1xxx style remarks about unusual characters inside quotes are about their author's intention, which is ours.
    found = subprocess.run(
        [str(Path(sys.executable).with_name("shellcheck")), "--shell=bash", "--severity=warning", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (0, "") == (found.returncode, found.stdout)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"python": "-c"}, "python: '-c'"),
        ({"python": ""}, "python: ''"),
        ({"agent": "agent.py"}, "agent: 'agent.py' is not an absolute path"),
        ({"config": "/a\0b"}, "config: .* NUL"),
        ({"prelude": ["echo a\r"]}, "prelude: .* carriage return"),
        ({"environment": {"A B": "1"}}, "environment: 'A B'"),
        ({"environment": {"A": "\0"}}, r"environment\[A\]: .* NUL"),
    ],
)
def test_what_a_script_cannot_hold_is_refused_by_name(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        script(**changes)


def request(*options: tuple[str, str], **more: object) -> JobRequest:
    usual: dict[str, object] = {"name": "llmop-abc-x-01", "script": "", "directory": "/shared/replicas/x"}
    return JobRequest(options=options, **{**usual, **more})  # type: ignore[arg-type]


def test_the_command_line_says_everything_the_protocol_needs() -> None:
    argv = sbatch_argv(
        request(("partition", "gpu"), ("time", "60"), ("exclusive", ""), signal_before_end_s=210)
    )
    assert [
        "sbatch",
        "--parsable",
        "--no-requeue",
        "--dependency=singleton",
        "--job-name=llmop-abc-x-01",
        "--open-mode=append",
        "--output=/shared/replicas/x/job.log",
        "--propagate=NONE",
        "--kill-on-invalid-dep=yes",
        "--chdir=/shared/replicas/x",
        "--signal=B:USR1@210",
        "--partition=gpu",
        "--time=60",
        "--exclusive",
    ] == argv


def test_fences_are_asked_for_as_the_site_needs_them() -> None:
    plain = sbatch_argv(JobRequest(name="n", options=(), script="", directory="/d"))
    assert "--dependency=singleton" in plain
    assert not [word for word in plain if word.startswith(("--comment", "--hold"))]
    bare = JobRequest(
        name="n", options=(), script="", directory="/d", singleton=False, comment="n; x", held=True
    )
    argv = sbatch_argv(bare)
    assert not [word for word in argv if word.startswith("--dependency")]
    assert {"--comment=n; x", "--hold"} <= set(argv)


def test_a_comment_of_the_users_own_gives_way_where_it_is_needed_as_a_name() -> None:
    own = JobRequest(name="n", options=(("comment", "project x"),), script="", directory="/d")
    assert "--comment=project x" in sbatch_argv(own)
    with pytest.raises(ValueError, match="'comment' is needed by llmop here"):
        sbatch_argv(dataclasses.replace(own, comment="n"))


def test_the_time_limit_is_added_in_minutes_unless_an_option_says_it() -> None:
    assert "--time=2" in sbatch_argv(request(time_limit_s=61))
    assert ["--time=5"] == [
        word for word in sbatch_argv(request(("time", "5"), time_limit_s=61)) if "time" in word
    ]


def test_a_percent_sign_in_the_directory_is_no_pattern() -> None:
    assert "--output=/a%%j/job.log" in sbatch_argv(request(directory="/a%j"))
    assert "--chdir=/a%j" in sbatch_argv(request(directory="/a%j"))


@pytest.mark.parametrize("value", [value for value in HOSTILE if value and "\n" not in value])
def test_hostile_option_values_stay_one_argument(value: str) -> None:
    assert f"--comment={value}" == sbatch_argv(request(("comment", value)))[-1]


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (request(("comment", "a\nb")), r"options\[comment\]: .* line break"),
        (request(("comment", "a\0b")), r"options\[comment\]: .* NUL"),
        (request(("--time", "1")), "options: '--time' is no long option"),
        (request(("time=1", "")), "options: 'time=1' is no long option"),
        (request(("dependency", "after:1")), "options: 'dependency' is set by llmop"),
        (request(("depend", "after:1")), "options: 'depend' is set by llmop"),
        (request(("requeue", "")), "options: 'requeue' is set by llmop"),
        (request(("wrap", "true")), "options: 'wrap' is set by llmop"),
        (request(name="a\nb"), "name: .* line break"),
        (request(directory="here"), "directory: 'here' is not an absolute path"),
    ],
)
def test_what_a_command_line_must_not_hold_is_refused_by_name(broken: JobRequest, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        sbatch_argv(broken)
