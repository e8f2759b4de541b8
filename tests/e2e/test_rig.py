"""The rigs themselves: what every other end-to-end test relies on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rigs.fixtures import engine_sif, llmop_venv, postgres_rig, slurm_rig
from tests.rigs.images import engine_image
from tests.rigs.interpreter import copy_interpreter, own_python
from tests.rigs.leftovers import end
from tests.rigs.postgres import PostgresRig
from tests.rigs.processes import Identity, wait_for
from tests.rigs.slurm import SlurmRig

__all__ = ["engine_sif", "llmop_venv", "postgres_rig", "slurm_rig"]  # fixtures

ROOT = Path(__file__).resolve().parents[2]
UNIT, RECORD = "\x1f", "\x1e"
FIELDS = (
    *(
        "JobID",
        "ArrayJobID",
        "ArrayTaskID",
        "Name",
        "State",
        "Reason",
        "Partition",
        "QOS",
        "Account",
        "BatchHost",
    ),
    *(
        "NodeList",
        "NumNodes",
        "SubmitTime",
        "EligibleTime",
        "StartTime",
        "EndTime",
        "TimeLimit",
        "PreemptTime",
    ),
    *(
        "RestartCnt",
        "exit_code",
        "PriorityLong",
        "WCKey",
        "Feature",
        "Dependency",
        "Reservation",
        "LastSchedEval",
    ),
    *("SchedNodes", "tres-alloc", "Comment", "admin_comment", "system_comment"),
)


@pytest.fixture
def slurm(slurm_rig: SlurmRig) -> Iterator[SlurmRig]:
    yield slurm_rig
    slurm_rig.cancel_all()


def submit(rig: SlurmRig, script: str, *options: str, timeout: float = 60) -> int:
    done = rig.run_as_user(
        ["sbatch", "--parsable", *options], input=f"#!/bin/sh\n{script}\n", timeout=timeout
    )
    assert (0, "") == (done.returncode, done.stderr)
    return int(done.stdout)


def output_of(rig: SlurmRig, script: str, *options: str) -> str:
    """What a job printed, once it has completed."""
    job = submit(rig, script, "--output=%j.log", *options)
    state = rig.wait_for_state(job, "COMPLETED", "FAILED")
    text = (rig.shared / f"{job}.log").read_text()
    assert state == "COMPLETED", text
    return text


def node_state(rig: SlurmRig, node: str) -> str:
    return rig.run_as_root(["sinfo", "--noheader", "--Node", f"--nodes={node}", "--format=%T"]).split()[0]


def processes_of(rig_directory: Path) -> list[str]:
    """Command lines of processes that name the rig's folder, or run with its Slurm inside a job."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                environment = (entry / "environ").read_bytes()
                if str(rig_directory).encode() in command + environment:
                    found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


def test_a_job_of_an_ordinary_user_sees_the_gpus_it_asked_for(slurm: SlurmRig) -> None:
    printed = output_of(slurm, 'echo "$(id -un) $CUDA_VISIBLE_DEVICES"', "--gres=gpu:a100:2")
    assert f"{slurm.user} 0,1\n" == printed


def test_squeue_prints_every_field_in_full_between_the_delimiters(slurm: SlurmRig) -> None:
    comment = "i=demo;u=" + "x" * 200
    job = submit(slurm, "sleep 600", "--hold", f"--comment={comment}", "--job-name=a|b c")
    form = "".join(f"{name}:{UNIT}," for name in FIELDS[:-1]) + f"{FIELDS[-1]}:{RECORD}"
    argv = ["squeue", "--noheader", "--array", "--states=all", f"--user={slurm.uid}", f"--Format={form}"]
    done = slurm.run_as_user(argv, env={"SLURM_TIME_FORMAT": "%s", "TZ": "UTC"})
    records = [line.split(UNIT) for line in done.stdout.split(RECORD + "\n") if line]
    assert {len(FIELDS)} == {len(record) for record in records}
    (held,) = (dict(zip(FIELDS, record, strict=True)) for record in records if record[0] == str(job))
    assert ("a|b c", "PENDING", "JobHeldUser", comment) == tuple(
        held[name] for name in ("Name", "State", "Reason", "Comment")
    )
    assert held["SubmitTime"].isdigit(), "SLURM_TIME_FORMAT=%s gives epoch seconds"


def test_singleton_holds_a_second_job_of_the_same_name(slurm: SlurmRig) -> None:
    first = submit(slurm, "sleep 600", "--job-name=only-one", "--dependency=singleton")
    second = submit(slurm, "sleep 600", "--job-name=only-one", "--dependency=singleton")
    slurm.wait_for_state(first, "RUNNING")

    def reason() -> str:
        argv = ["squeue", "--noheader", f"--jobs={second}", "--format=%T %r"]
        return str(slurm.run_as_user(argv).stdout)

    wait_for("the second to wait", lambda: "PENDING Dependency\n" == reason(), timeout=30)


def test_a_container_runs_inside_a_job_of_an_ordinary_user(slurm: SlurmRig, engine_sif: Path) -> None:
    script = (
        f"apptainer --quiet exec --cleanenv --contain --home $PWD --env CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES"
        f" --bind /usr/share:/models:ro {engine_sif}"
        " python3 -c 'import asyncio, http.server, json, os, ssl, sys;"
        ' print(os.getuid(), os.environ["CUDA_VISIBLE_DEVICES"], os.path.isdir("/models"), sys.version_info >= (3, 11))\''
    )
    assert f"{slurm.uid} 0 True True\n" == output_of(slurm, script, "--gres=gpu:1")


def test_the_image_serves_http_and_ends_with_its_signal(slurm: SlurmRig, engine_sif: Path) -> None:
    argv = ["apptainer", "--quiet", "exec", str(engine_sif), "python3", "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"]  # fmt: skip
    server = subprocess.Popen(**slurm.as_user(argv), cwd=slurm.shared, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("Serving HTTP on 127.0.0.1")
    finally:
        server.terminate()
        server.communicate(timeout=30)
    assert -signal.SIGTERM == server.returncode or 128 + signal.SIGTERM == server.returncode


def test_what_was_sent_to_a_paused_slurmctld_is_done_when_it_continues(slurm: SlurmRig) -> None:
    argv = ["sbatch", "--parsable", "--hold", "--job-name=late", "--wrap=true"]
    slurm.pause_slurmctld()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            slurm.run_as_user(argv, timeout=3)
    finally:
        slurm.resume_slurmctld()
    wait_for("the job to land", lambda: "late" in {job.name for job in slurm.squeue()}, timeout=30)


def test_jobs_survive_a_killed_slurmctld(slurm: SlurmRig) -> None:
    job = submit(slurm, "sleep 600")
    slurm.wait_for_state(job, "RUNNING")
    slurm.save_state()
    before = slurm.slurmctld_pid
    slurm.kill_slurmctld()
    refused = slurm.run_as_user(["squeue", "--noheader"])
    assert (1, True) == (refused.returncode, "Unable to contact slurm controller" in refused.stderr)
    slurm.start_slurmctld()
    assert before != slurm.slurmctld_pid
    assert "RUNNING" == slurm.wait_for_state(job, "RUNNING")


def test_a_job_outlives_its_slurmd_but_not_its_node(slurm: SlurmRig) -> None:
    pid_file = slurm.shared / "outlives.pid"
    script = f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; sleep 600"
    job = submit(slurm, script, "--nodelist=n2", "--no-requeue")
    wait_for("the job to start", pid_file.exists, timeout=30)
    process = Identity.of(int(pid_file.read_text()))
    assert process is not None
    slurm.kill_slurmd("n2")
    assert process.alive()
    slurm.start_node("n2")
    assert "RUNNING" == slurm.wait_for_state(job, "RUNNING")
    slurm.kill_node("n2")
    assert not process.alive()
    assert "NODE_FAIL" == slurm.wait_for_state(job, "NODE_FAIL")
    slurm.start_node("n2")
    wait_for("the node to come back", lambda: "idle" == node_state(slurm, "n2"), timeout=60)


def test_an_account_cannot_cancel_a_job_of_another(slurm: SlurmRig) -> None:
    job = submit(slurm, "sleep 600", "--hold")
    refused = slurm.run_as_user(["scancel", str(job)], user="llmoptest2")
    assert "Access/permission denied" in refused.stderr
    assert "PENDING" == slurm.wait_for_state(job, "PENDING")


def test_two_rigs_run_side_by_side_and_leave_no_process(slurm: SlurmRig) -> None:
    ours = submit(slurm, "sleep 600", "--job-name=in-the-first", "--hold")
    with SlurmRig(nodes=2, overrides={"MinJobAge": "7", "SlurmctldTimeout": None}) as other:
        directory = other.directory
        # Everything a job can do to get away: its own session, no environment, its parent gone.
        stray = f"/bin/sleep {100_000 + os.getpid()}"
        submit(other, f"setsid env -i {stray} & sleep 600")
        wait_for("the stray process", lambda: _running(stray), timeout=30)
        assert "in-the-first" not in {job.name for job in other.squeue()}
        assert (
            "7" in other.run_as_root(["scontrol", "show", "config"]).partition("MinJobAge")[2].splitlines()[0]
        )
    assert ([], False) == (processes_of(directory), directory.exists())
    assert not _running(stray)
    assert "PENDING" == slurm.wait_for_state(ours, "PENDING")


def test_a_rig_dies_with_the_test_run_that_was_killed(tmp_path: Path) -> None:
    script = (
        "import signal; from tests.rigs.slurm import SlurmRig;"
        " print(SlurmRig(nodes=1).start().directory, flush=True); signal.pause()"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert run.stdout is not None
    directory = Path(run.stdout.readline().strip())
    assert processes_of(directory)
    run.kill()
    run.wait()
    run.stdout.close()
    wait_for("the rig to die", lambda: not processes_of(directory), timeout=30)
    end(directory)
    assert not directory.exists()


def test_dev_slurm_outlives_its_shell_and_ends_also_what_lost_its_keeper(slurm_rig: SlurmRig) -> None:
    directory = slurm_rig.shared / "dev"
    command = [str(ROOT / "hack/dev-slurm")]
    where = ["--dir", str(directory)]
    sleep = f"sleep {200_000 + os.getpid()}"

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *words], capture_output=True, text=True, timeout=120, check=False)

    up = call("up", "--nodes", "2", *where)
    assert f"export SLURM_CONF={directory}/etc/slurm.conf" in up.stdout, up.stderr
    try:
        again = call("up", *where)
        assert (1, True) == (again.returncode, "runs in" in again.stderr)
        status = call("status", *where)
        assert (0, True) == (status.returncode, "n[1-2]" in status.stdout)
        env = {"SLURM_CONF": f"{directory}/etc/slurm.conf"}
        sent = slurm_rig.run_as_user(
            ["sbatch", "--parsable", "--output=/dev/null", f"--wrap={sleep}"], env=env
        )
        assert 0 == sent.returncode, sent.stderr
        wait_for("the job to start", lambda: _running(sleep), timeout=30)
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if (
                    f"{directory}/run".encode() in (entry / "cmdline").read_bytes()
                    and b"keeper.py" in (entry / "cmdline").read_bytes()
                ):
                    os.kill(int(entry.name), signal.SIGKILL)
    finally:
        down = call("down", *where)
    assert (0, "") == (down.returncode, down.stderr)
    assert ([], False) == (processes_of(directory), directory.exists())
    assert not _running(sleep)


def test_postgres_keeps_what_was_committed_before_it_was_killed(postgres_rig: PostgresRig) -> None:
    assert postgres_rig.database("rig_smoke").endswith(postgres_rig.url.partition("/postgres")[2])
    assert "on\n" == postgres_rig.query("SHOW fsync")
    postgres_rig.query("CREATE TABLE t AS SELECT 7 AS a", "rig_smoke")
    postgres_rig.kill_server()
    postgres_rig.start_server()
    assert "7\n" == postgres_rig.query("SELECT a FROM t", "rig_smoke")


def test_an_ordinary_account_runs_the_installed_programs(slurm: SlurmRig, llmop_venv: Path) -> None:
    script = (
        "import importlib.metadata, llmop; print(importlib.metadata.version('llmop') == llmop.__version__)"
    )
    done = slurm.run_as_user([str(llmop_venv / "bin" / "python"), "-I", "-c", script])
    assert ("True\n", "") == (done.stdout, done.stderr)


def test_a_copied_interpreter_runs_without_the_home_it_came_from(slurm: SlurmRig) -> None:
    copy = copy_interpreter(own_python())
    script = "import ssl, sqlite3, sys; print(sys.version_info[:3])"
    done = slurm.run_as_user([str(copy), "-I", "-c", script])
    assert (f"{sys.version_info[:3]}\n", "") == (done.stdout, done.stderr)


def test_the_image_is_made_once(engine_sif: Path) -> None:
    before = engine_sif.stat().st_ino
    assert (engine_sif, before) == (engine_image(), engine_sif.stat().st_ino)


def test_an_account_runs_nothing_that_lies_where_it_may_not_look(slurm: SlurmRig, tmp_path: Path) -> None:
    program = tmp_path / "closed" / "program"
    program.parent.mkdir(mode=0o700)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    done = slurm.run_as_user([str(program)])
    assert (126, True) == (done.returncode, "Permission denied" in done.stderr)


def _running(command: str) -> bool:
    """Whether a process has exactly this command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if line == command:
                    return True
    return False
