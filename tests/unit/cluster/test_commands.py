"""What the driver makes of commands that fail, hang, chatter or are missing; the commands are stand-ins on PATH."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.waiting import until

from llmop.cluster.slurm import parse
from llmop.cluster.slurm.commands import SlurmCommands
from llmop.domain.job import (
    Capabilities,
    History,
    JobRequest,
    JobState,
    Refused,
    RejectClass,
    Rejected,
    Submitted,
    SubmitUnknown,
)
from llmop.testing.clock import FakeClock

REQUEST = JobRequest(
    name="llmop-x", options=(("time", "5"),), script="#!/bin/bash\n: here\n", directory="/shared/x"
)
RECORD = (
    parse.FIELD_END.join(["7", "7", "N/A", "llmop-x", "RUNNING", *["(null)"] * 26]) + parse.RECORD_END + "\n"
)

Install = Callable[..., SlurmCommands]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Writes stand-ins (bash) for commands and returns a driver that finds only them."""

    def driver(*, timeout_s: float = 20, **scripts: str) -> SlurmCommands:
        for name, body in scripts.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
            (tmp_path / name).chmod(0o755)
        environ = {
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "SLURM_CONF": "/etc/own.conf",
            "SQUEUE_FORMAT": "%i",
            "SBATCH_PARTITION": "other",
            "SLURM_TIME_FORMAT": "relative",
            "HF_TOKEN": "secret",
        }
        return SlurmCommands(
            FakeClock(), environ=environ, submit_timeout_s=timeout_s, query_timeout_s=timeout_s
        )

    return driver


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


async def until_gone(pid: int) -> None:
    await until(lambda: not alive(pid))


async def test_a_submission_hands_over_options_and_script_and_returns_the_id(
    install: Install, tmp_path: Path
) -> None:
    driver = install(sbatch=f'printf "%s\\n" "$@" > {tmp_path}/argv; cat > {tmp_path}/stdin; echo 17')
    assert Submitted(job_id="17") == await driver.submit(REQUEST)
    argv = (tmp_path / "argv").read_text().splitlines()
    assert {"--parsable", "--no-requeue", "--dependency=singleton", "--job-name=llmop-x", "--time=5"} <= set(
        argv
    )
    assert REQUEST.script == (tmp_path / "stdin").read_text()


@pytest.mark.parametrize(("command", "call"), [("sbatch", "submit"), ("squeue", "snapshot")])
async def test_commands_run_in_an_environment_made_from_nothing(
    install: Install, tmp_path: Path, command: str, call: str
) -> None:
    driver = install(**{command: f"env -0 > {tmp_path}/env; cat > /dev/null; echo 17"})
    await (driver.submit(REQUEST) if call == "submit" else driver.snapshot())
    seen = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().split("\0") if line)
    for added_by_bash in ("PWD", "SHLVL", "_", "OLDPWD"):
        seen.pop(added_by_bash, None)
    printing = {"LC_ALL": "C", "TZ": "UTC", "SLURM_TIME_FORMAT": "%s"}
    expected = {"SLURM_CONF": "/etc/own.conf", **({"LANG": "C.UTF-8"} if command == "sbatch" else printing)}
    assert expected == {name: seen[name] for name in seen.keys() - {"PATH", "HOME", "USER", "LOGNAME"}}


async def test_a_hanging_sbatch_is_killed_and_nobody_knows(install: Install, tmp_path: Path) -> None:
    driver = install(timeout_s=0.5, sbatch=f"echo $$ > {tmp_path}/pid; sleep 600")
    outcome = await driver.submit(REQUEST)
    assert SubmitUnknown(message="sbatch did not end within 0.5 s and was killed") == outcome
    await until_gone(int((tmp_path / "pid").read_text()))


async def test_children_of_a_killed_command_die_too(install: Install, tmp_path: Path) -> None:
    driver = install(timeout_s=0.5, squeue=f"sleep 600 & echo $! > {tmp_path}/pid; wait")
    assert "squeue did not end within 0.5 s and was killed" == (await driver.snapshot()).problem
    await until_gone(int((tmp_path / "pid").read_text()))


async def test_a_cancelled_call_leaves_no_process(install: Install, tmp_path: Path) -> None:
    driver = install(squeue=f"echo $$ > {tmp_path}/pid; exec sleep 600")
    task = asyncio.create_task(driver.snapshot())
    await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("echo; exit 0", SubmitUnknown),
        ("echo 17; exit 1", SubmitUnknown),
        ("echo 17 >&2; kill -9 $$", SubmitUnknown),
        ("echo 'sbatch: error: never heard of' >&2; exit 1", SubmitUnknown),
        ("echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1", SubmitUnknown),
        ("echo 'sbatch: error: Slurm temporarily unable to accept job' >&2; exit 1", Refused),
        ("echo 'sbatch: error: Invalid qos specification' >&2; exit 1", Rejected),
    ],
)
async def test_only_known_words_decide_a_failed_submission(
    install: Install, body: str, expected: type
) -> None:
    assert expected is type(await install(sbatch=body).submit(REQUEST))


async def test_the_message_of_a_rejection_is_slurms_own(install: Install) -> None:
    outcome = await install(sbatch="echo 'sbatch: error: Invalid qos specification' >&2; exit 1").submit(
        REQUEST
    )
    assert Rejected(reject_class=RejectClass.INVALID_QOS, message="Invalid qos specification") == outcome


async def test_a_missing_sbatch_has_made_no_job(tmp_path: Path) -> None:
    driver = SlurmCommands(FakeClock(), environ={"PATH": str(tmp_path)})
    assert Refused(message="sbatch cannot be started: No such file or directory") == await driver.submit(
        REQUEST
    )


async def test_a_snapshot_is_what_squeue_printed(install: Install) -> None:
    driver = install(
        squeue=f"printf %s {json.dumps(RECORD)}".replace("\\u001f", "\x1f")
        .replace("\\u001e", "\x1e")
        .replace("\\n", "\n")
    )
    snapshot = await driver.snapshot()
    assert "" == snapshot.problem
    assert [("7", "llmop-x", JobState.RUNNING)] == [
        (job.job_id, job.name, job.state) for job in snapshot.jobs
    ]


async def test_squeue_is_asked_for_the_own_jobs_only(install: Install, tmp_path: Path) -> None:
    await install(squeue=f'printf "%s\\n" "$@" > {tmp_path}/argv').snapshot()
    argv = (tmp_path / "argv").read_text().splitlines()
    assert ["--noheader", "--array", "--states=all", f"--user={os.geteuid()}", "--local"] == argv[:5]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            "echo 'slurm_load_jobs error: Unable to contact' >&2; exit 1",
            "slurm_load_jobs error: Unable to contact",
        ),
        ("exit 3", "squeue ended with code 3 and without a word"),
        ("echo 'squeue: error: Invalid user: x' >&2", "Invalid user: x"),
        ("echo Welcome", "squeue printed something that is no complete job record at the end: 'Welcome\\n'"),
        ("kill -9 $$", "squeue ended with code -9 and without a word"),
    ],
)
async def test_a_squeue_that_went_wrong_is_no_information(install: Install, body: str, problem: str) -> None:
    snapshot = await install(squeue=body).snapshot()
    assert (problem, ()) == (snapshot.problem, snapshot.jobs)


async def test_no_output_is_an_empty_queue(install: Install) -> None:
    snapshot = await install(squeue="echo 'a warning of the site' >&2").snapshot()
    assert ("", ()) == (snapshot.problem, snapshot.jobs)


async def test_an_endless_output_is_cut_off(install: Install) -> None:
    snapshot = await install(squeue="yes").snapshot()
    assert "squeue printed more than 64 MiB and was killed" == snapshot.problem


async def test_endless_complaints_do_not_stop_a_command(install: Install) -> None:
    snapshot = await install(squeue="head -c 2000000 /dev/zero >&2; exit 1").snapshot()
    assert 500 == len(snapshot.problem)


async def test_one_squeue_at_a_time(install: Install, tmp_path: Path) -> None:
    driver = install(squeue=f"mkdir {tmp_path}/busy || exit 9; sleep 0.05; rmdir {tmp_path}/busy")
    snapshots = await asyncio.gather(*(driver.snapshot() for _ in range(4)))
    assert ["", "", "", ""] == [snapshot.problem for snapshot in snapshots]


async def test_fifty_jobs_are_cancelled_with_one_command(install: Install, tmp_path: Path) -> None:
    driver = install(scancel=f'echo "$#" >> {tmp_path}/calls')
    assert "" == await driver.cancel([str(number) for number in range(1, 121)])
    assert ["50", "50", "20"] == (tmp_path / "calls").read_text().split()


async def test_cancelling_what_is_over_is_no_error(install: Install) -> None:
    over = "echo 'scancel: error: Kill job error on job id 5: Invalid job id specified' >&2; exit 1"
    assert "" == await install(scancel=over).cancel(["5"])


async def test_a_cancellation_that_failed_says_so(install: Install) -> None:
    denied = (
        "echo 'scancel: error: Kill job error on job id 5: Invalid job id specified' >&2;"
        "echo 'scancel: error: Kill job error on job id 6: Access/permission denied' >&2; exit 210"
    )
    assert "Kill job error on job id 6: Access/permission denied" == await install(scancel=denied).cancel(
        ["5", "6"]
    )


async def test_a_cluster_without_accounting_is_asked_once(install: Install, tmp_path: Path) -> None:
    driver = install(
        sacct=f"echo x >> {tmp_path}/calls; echo 'Slurm accounting storage is disabled' >&2; exit 1"
    )
    expected = History(available=False, problem="this Slurm keeps no accounting")
    assert [expected, expected] == [await driver.history(["a"], 0), await driver.history(["a"], 0)]
    assert "x\n" == (tmp_path / "calls").read_text()


async def test_an_accounting_that_is_down_has_no_answer_but_exists(install: Install) -> None:
    history = await install(sacct="echo 'sacct: error: slurmdbd: Connection refused' >&2; exit 1").history(
        ["a"], 0
    )
    assert History(available=True, problem="slurmdbd: Connection refused") == history


async def test_history_is_asked_by_name_and_holds_nothing_older_or_foreign(
    install: Install, tmp_path: Path
) -> None:
    lines = [
        [
            "1",
            "a",
            "COMPLETED",
            "0:0",
            "None",
            "1760000099",
            "1760000100",
            "1760000200",
            "10",
            "gpu",
            "n1",
            "",
        ],
        ["2", "a", "FAILED", "3:0", "None", "1760000150", "1760000151", "1760000200", "10", "gpu", "n1", ""],
        [
            "3",
            "other",
            "FAILED",
            "3:0",
            "None",
            "1760000150",
            "1760000151",
            "1760000200",
            "10",
            "gpu",
            "n1",
            "",
        ],
    ]
    (tmp_path / "out").write_text("".join("\x1f".join(line) + "\n" for line in lines))
    driver = install(sacct=f'printf "%s\\n" "$@" > {tmp_path}/argv; cat {tmp_path}/out')
    history = await driver.history(["a", "b"], 1760000100.5)
    assert ["2"] == [job.job_id for job in history.jobs]
    argv = (tmp_path / "argv").read_text().splitlines()
    assert {"uts1760000100", "--name=a,b", "-D", "-X"} <= set(argv)


CONFIG = "Configuration data as of 1\\nSLURM_VERSION = 24.11.5\\nMinJobAge = 300 sec\\nKillWait = 30 sec\\nMessageTimeout = 10 sec\\n"


async def test_capabilities_come_from_scontrol(install: Install) -> None:
    driver = install(
        scontrol=f"""
if [ "$2" = config ]; then printf '{CONFIG}AccountingStorageType = accounting_storage/slurmdbd\\nPrivateData = (null)\\n'
else printf 'PartitionName=gpu State=UP\\nPartitionName=cpu State=DOWN\\n'; fi"""
    )
    expected = Capabilities(
        version="24.11.5",
        min_job_age_s=300,
        kill_wait_s=30,
        message_timeout_s=10,
        accounting=True,
        partitions=("gpu", "cpu"),
        clock_ahead_s=1.0 - FakeClock().now(),  # it says that it is one second past 1970
        values={
            "SLURM_VERSION": "24.11.5",
            "MinJobAge": "300 sec",
            "KillWait": "30 sec",
            "MessageTimeout": "10 sec",
            "AccountingStorageType": "accounting_storage/slurmdbd",
        },
    )
    assert expected == await driver.capabilities()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("echo 'scontrol: error: no way' >&2; exit 1", "no way"),
        (
            "echo 'KillWait = 30 sec'",
            "scontrol show config does not say SLURM_VERSION, MinJobAge, MessageTimeout",
        ),
    ],
)
async def test_capabilities_that_cannot_be_had_are_a_sentence(
    install: Install, body: str, expected: str
) -> None:
    assert expected == await install(scontrol=body).capabilities()
