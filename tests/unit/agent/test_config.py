"""replica.json: what is accepted, and how what is not accepted is named."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.unit.agent.replica_json import replica_json

from llmop.agent.agent import Config, End, Job, fill, read_env_file


def test_absent_fields_have_the_contracts_defaults() -> None:
    config = Config(replica_json(), "/here")

    assert "/here" == config.directory
    assert (30, 120, 120) == (config.controller_wait, config.termination_grace, config.rollover_margin)
    engine = config.engine
    assert (["http"], "{scratch}", False, None) == (engine.ports, engine.cwd, engine.contained, engine.warmup)
    assert (signal.SIGTERM, 30) == (engine.stop_signal, engine.stop_timeout)
    assert (5, 5, 3) == (engine.health_period, engine.health_timeout, engine.failure_threshold)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("version", 2, "version is 2: it must be 1: this agent is of another release"),
        ("replica", [], "replica must be an object, not []"),
        ("replica.uid", "", "replica.uid is '': it must be text that is not empty"),
        ("replica.jobName", "../x", "replica.jobName is '../x': it must be a file name"),
        ("sharedDir", None, "sharedDir is missing"),
        ("token", "a b", "token must be printable ASCII without blanks (its value is not shown)"),
        ("apiKey", "ä", "apiKey must be printable ASCII without blanks (its value is not shown)"),
        ("gpus", -1, "gpus is -1: it must be a number from 0 on"),
        ("gpus", 1.5, "gpus is 1.5: it must be a whole number"),
        ("gpus", True, "gpus is True: it must be a number from 0 on"),
        ("engine.argv", [], "engine.argv is []: it must be a command: its first item is the program"),
        (
            "engine.argv",
            "sh -c x",
            "engine.argv is 'sh -c x': it must be a list of texts without NUL characters",
        ),
        (
            "engine.argv",
            ["a\0"],
            "engine.argv is ['a\\x00']: it must be a list of texts without NUL characters",
        ),
        ("engine.env", {"A-B": "c"}, "engine.env is 'A-B': it must be names of letters, digits and _"),
        ("engine.env", {"A": 1}, "engine.env.A is 1: it must be text without NUL characters"),
        ("engine.env", {"A": "b\0"}, "engine.env.A is 'b\\x00': it must be text without NUL characters"),
        ("engine.apiKeyEnv", "A B", "engine.apiKeyEnv is 'A B': it must be the name of a variable"),
        ("engine.ports", ["a"], "engine.ports is ['a']: it must be different names, one of them http"),
        (
            "engine.container",
            {"kind": "docker"},
            "engine.container.kind is 'docker': it must be one of none, apptainer",
        ),
        (
            "engine.container",
            {"kind": "apptainer", "image": "docker://x"},
            "engine.container.image is 'docker://x': it must be an absolute path",
        ),
        (
            "engine.container",
            {"kind": "apptainer", "image": "/x.sif", "binds": ["/a,/etc:/b"]},
            (
                "engine.container.binds is '/a,/etc:/b': "
                "it must be /host, /host:/inside or /host:/inside:ro, without commas"
            ),
        ),
        (
            "engine.health",
            {"path": "health"},
            "engine.health.path is 'health': it must be a path from / on, of printable ASCII",
        ),
        (
            "engine.metrics",
            {"path": "metrics"},
            "engine.metrics.path is 'metrics': it must be a path from / on, of printable ASCII",
        ),
        (
            "engine.metrics",
            {"path": "/metrics", "running": "a b"},
            "engine.metrics.running is 'a b': it must be the name of a metric",
        ),
        (
            "engine.metrics",
            {"path": "/metrics", "kvCacheUsage": "a / b / c"},
            "engine.metrics.kvCacheUsage is 'a / b / c': it must be the name of a metric, or two like used / total",
        ),
        (
            "engine.warmup",
            {"path": "/x", "method": "PUT"},
            "engine.warmup.method is 'PUT': it must be one of POST, GET",
        ),
        (
            "engine.stop",
            {"signal": "SIGTERM"},
            "engine.stop.signal is 'SIGTERM': it must be the name of a signal without SIG, such as TERM",
        ),
        ("engine.maxRestarts", None, "engine.maxRestarts is missing"),
    ],
)
def test_a_field_that_cannot_be_used_is_named_with_its_value_and_the_fix(
    path: str, value: Any, message: str
) -> None:
    document = replica_json()
    *parents, last = path.split(".")
    target = document
    for name in parents:
        target = target[name]
    target[last] = value

    with pytest.raises(End) as raised:
        Config(document, "/here")
    assert ("BadSpec", 64, message) == (raised.value.reason, raised.value.code, raised.value.message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        ("{", "is not JSON: "),
        ("7", "replica.json must be an object, not 7"),
    ],
)
def test_a_file_that_is_no_configuration_is_a_bad_spec(
    tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "replica.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(End) as raised:
        Config.load(str(path))
    assert "BadSpec" == raised.value.reason
    assert message in raised.value.message


def test_a_file_is_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "replica.json"
    path.write_text(json.dumps(replica_json(env={"A": "ü\n'"})), encoding="utf-8")

    assert {"A": "ü\n'"} == Config.load(str(path)).engine.env


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("--port={port}", "--port=20000"),
        ("{port:prometheus}", "20001"),
        ("{host}:{port}", "0.0.0.0:20000"),
        ("{scratch}/x {apiKeyFile}", "/s/x /s/key"),
        ("{{port}}", "{port}"),
        ("{{{port}}}", "{20000}"),
        ('{{"a": {{"b": 1}}}}', '{"a": {"b": 1}}'),
        ("{other} ${HOME} {", "{other} ${HOME} {"),
        ("$(x) {port}", "$(x) 20000"),
    ],
)
def test_placeholders_are_replaced_once_and_nothing_else_is(template: str, filled: str) -> None:
    ports = {"http": 20000, "prometheus": 20001}
    words = {"host": "0.0.0.0", "scratch": "/s", "apiKeyFile": "/s/key"}

    assert filled == fill(template, ports, words)


def test_a_value_with_braces_is_not_filled_again() -> None:
    assert "/s/{port}" == fill("{scratch}", {"http": 1}, {"scratch": "/s/{port}"})


def test_an_unknown_port_is_named() -> None:
    with pytest.raises(End, match=r"\{port:grpc\}: engine.ports has no 'grpc', only http"):
        fill("{port:grpc}", {"http": 1}, {})


def secret_file(tmp_path: Path, content: bytes, mode: int = 0o600) -> str:
    path = tmp_path / "secrets.env"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def test_secret_files_hold_values_as_they_stand(tmp_path: Path) -> None:
    path = secret_file(tmp_path, b"# a comment\n\nA=b c\nB='$(x)'=\nC=\n")

    assert {"A": "b c", "B": "'$(x)'=", "C": ""} == read_env_file(path)


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (b"A=b\n", 0o640, "is open to others: chmod 600 "),
        (b"A=b\nexport SECRET\n", 0o600, ":2 is not NAME=value"),
        (b"\xff", 0o600, "cannot be read"),
    ],
)
def test_a_secret_file_that_cannot_be_used_is_named_without_its_content(
    tmp_path: Path, content: bytes, mode: int, message: str
) -> None:
    with pytest.raises(End) as raised:
        read_env_file(secret_file(tmp_path, content, mode))
    assert "BadSpec" == raised.value.reason
    assert message in raised.value.message
    assert "SECRET" not in raised.value.message


def test_a_missing_secret_file_is_a_missing_artifact() -> None:
    with pytest.raises(End) as raised:
        read_env_file("/nowhere/hf.env")
    assert "MissingArtifact" == raised.value.reason


def test_the_job_is_read_from_the_schedulers_variables() -> None:
    job = Job(
        {
            "SLURM_JOB_ID": "17",
            "SLURM_RESTART_COUNT": "2",
            "SLURMD_NODENAME": "n1",
            "SLURM_JOB_END_TIME": "99",
        }
    )

    assert ({"jobId": "17", "restartCount": 2}, "n1", 99.0) == (job.holder(), job.node, job.end_time)
    assert (0, None, os.uname().nodename) == (
        Job({"SLURM_JOB_ID": "1"}).restart_count,
        Job({"SLURM_JOB_ID": "1"}).end_time,
        Job({"SLURM_JOB_ID": "1"}).node,
    )


def test_a_start_outside_a_job_is_refused() -> None:
    with pytest.raises(End, match="SLURM_JOB_ID is not set"):
        Job({})
