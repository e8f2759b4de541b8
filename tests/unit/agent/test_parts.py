"""The agent's small parts: the claim link, the log, the command, the drain plan, orders."""

from __future__ import annotations

import ast
import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.unit.agent.replica_json import replica_json

from llmop.agent import agent
from llmop.agent.agent import (
    Addresses,
    ClaimLink,
    Config,
    DrainPlan,
    Job,
    Launch,
    LogKeeper,
    drain_order,
    host_and_port,
    quoted,
)


def config(tmp_path: Path, **engine: Any) -> Config:
    document = replica_json(**engine)
    document["sharedDir"] = str(tmp_path)
    return Config(document, str(tmp_path))


def job(number: str, restart: str = "0") -> Job:
    return Job({"SLURM_JOB_ID": number, "SLURM_RESTART_COUNT": restart, "SLURMD_NODENAME": "n1"})


def test_the_agent_is_written_in_python_3_6() -> None:
    source = Path(agent.__file__).read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))


def test_the_first_job_makes_the_link_and_the_second_sees_it(tmp_path: Path) -> None:
    first = ClaimLink(config(tmp_path), job("16"))
    first.tidy()
    second = ClaimLink(config(tmp_path), job("17"))

    assert first.is_mine()
    assert not second.is_mine()
    assert {"jobId": "16", "restartCount": 0} == second.holder
    second.tidy()
    assert ["llmop-k3v9qd-llama"] == [path.name for path in (tmp_path / "claims").iterdir()]


def test_the_same_start_of_a_job_keeps_its_claim_and_a_requeued_one_does_not(tmp_path: Path) -> None:
    ClaimLink(config(tmp_path), job("16")).tidy()
    same = ClaimLink(config(tmp_path), job("16"))
    requeued = ClaimLink(config(tmp_path), job("16", "1"))

    assert same.is_mine()
    assert not requeued.is_mine()
    requeued.take_over()
    assert requeued.is_mine()
    claimed = json.loads((tmp_path / "claims/llmop-k3v9qd-llama").read_text())
    assert {"jobId": "16", "restartCount": 1, "node": "n1"} == claimed
    same.tidy()


def test_a_link_that_cannot_be_read_is_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims/llmop-k3v9qd-llama").write_text("")
    link = ClaimLink(config(tmp_path), job("16"))

    assert not link.is_mine()
    assert "" == link.holder["jobId"]
    link.tidy()


def test_a_long_log_is_moved_aside_and_writing_goes_on_at_its_new_end(tmp_path: Path) -> None:
    log = LogKeeper(str(tmp_path / "engine.log"), limit=100)
    with open(log.open(), "wb", buffering=0) as writer:
        writer.write(b"a" * 100)
        log.bound()
        assert not (tmp_path / "engine.log.1").exists()
        writer.write(b"b\n")
        log.bound()
        writer.write(b"c\n")

    assert b"a" * 100 + b"b\n" == (tmp_path / "engine.log.1").read_bytes()
    assert b"c\n" == (tmp_path / "engine.log").read_bytes()
    assert 0o600 == (tmp_path / "engine.log").stat().st_mode & 0o777


def test_the_tail_is_of_this_engine_cut_and_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "engine.log").write_text("of the engine before\n")
    log = LogKeeper(str(tmp_path / "engine.log"), limit=1 << 20)
    with open(log.open(), "w", encoding="utf-8") as writer:
        writer.write("key=the-key\n" + "x" * 1000 + "\n")

    assert ["key=***", "x" * 400] == log.tail(["the-key"])


@pytest.mark.parametrize("text", ["", "a b", "it's", "$(x) `y` $HOME", "two\nlines\n", '\\"', "'" * 5, "ü"])
def test_a_quoted_text_is_one_word_of_a_shell(text: str) -> None:
    said = subprocess.run(["/bin/sh", "-c", f"printf %s {quoted(text)}"], capture_output=True, check=True)

    assert text == said.stdout.decode()
    assert [text] == shlex.split(quoted(text))


def launch(tmp_path: Path, environment: dict[str, str], **engine: Any) -> Launch:
    ports = {"http": 20000}
    return Launch(config(tmp_path, **engine), ports, "127.0.0.1", "/usr/bin/apptainer", environment)


def test_the_engines_environment_is_built_from_scratch(tmp_path: Path) -> None:
    outside = {"PATH": "/bin", "HOME": "/home/u", "USER": "u", "LD_PRELOAD": "x", "CUDA_VISIBLE_DEVICES": "1"}
    start = launch(tmp_path, outside, env={"A": "{port}"}, apiKeyEnv="KEY")
    order = start.order("/log")

    assert ["engine", "--port", "20000"] == order["argv"]
    assert start.scratch == order["cwd"]
    assert {
        "PATH": "/bin",
        "HOME": "/home/u",
        "USER": "u",
        "LANG": "C.UTF-8",
        "TMPDIR": f"{start.scratch}/tmp",
        "CUDA_VISIBLE_DEVICES": "1",
        "A": "20000",
        "KEY": "the-key",
    } == order["env"]
    assert 0o600 == Path(start.key_file).stat().st_mode & 0o777
    assert 0o700 == Path(start.scratch).stat().st_mode & 0o777
    start.remove()
    assert not Path(start.scratch).exists()


@pytest.mark.parametrize("container", [{"kind": "none"}, {"kind": "apptainer", "image": "/x.sif"}])
def test_sockets_get_a_short_path_however_deep_the_replica_lies(
    tmp_path: Path, container: dict[str, Any]
) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    start = launch(deep, {}, argv=["engine", "--uds={sockets}/shard"], container=container)
    order = start.order("/log")

    (uds,) = (word for word in order["argv"] if word.startswith("--uds="))
    place = Path(uds.removeprefix("--uds=")).parent
    assert Path("/tmp") == place.parent
    assert 0o700 == place.stat().st_mode & 0o777
    assert [start.scratch, str(place)] == order["remove"]
    assert (container["kind"] == "apptainer") == (f"{place}:{place}" in order["argv"])
    start.remove()
    assert not place.exists()


@pytest.mark.parametrize(("gpu", "flags"), [("none", []), ("nvidia", ["--nv"]), ("amd", ["--rocm"])])
def test_the_containers_command_line_holds_no_value_of_the_environment(
    tmp_path: Path, gpu: str, flags: list[str]
) -> None:
    container = {"kind": "apptainer", "image": "/x.sif", "gpu": gpu, "binds": ["/models:/models:ro"]}
    outside = {"PATH": "/bin", "APPTAINER_BIND": "/etc", "SLURM_JOB_ID": "17"}
    start = launch(tmp_path, outside, container=container, env={"A": "it's"}, cwd="/tmp", apiKeyEnv="KEY")
    order = start.order("/log")

    place = start.scratch
    expected = ["/usr/bin/apptainer", "exec", "--cleanenv", "--contain"]
    expected += ["--workdir", f"{place}/container", "--home", f"{place}/home"]
    expected += ["--bind", f"{place}:{place}", "--bind", "/models:/models:ro", "--pwd", "/tmp", *flags]
    expected += ["/x.sif", "/bin/sh", "-c", '. "$0" && exec "$@"', f"{place}/environment"]
    assert [*expected, "engine", "--port", "20000"] == order["argv"]
    temporary = {
        f"{fork}_{kind}"
        for fork in ("APPTAINER", "SINGULARITY")
        for kind in ("CACHEDIR", "CONFIGDIR", "TMPDIR")
    }
    assert {"PATH", "HOME", "USER", "TMPDIR", "LANG"} | temporary == set(order["env"])
    assert {f"{place}/tmp"} == {order["env"][name] for name in temporary}
    exports = "export A='it'\\''s'\nexport KEY='the-key'\nexport LANG='C.UTF-8'\nexport SLURM_JOB_ID='17'\n"
    assert exports == Path(place, "environment").read_text()
    assert 0o600 == Path(place, "environment").stat().st_mode & 0o777


def test_a_second_wish_to_end_only_makes_the_drain_shorter() -> None:
    plan = DrainPlan("Rollover", "Drained", deadline=100.0, settle=5.0, stop_by=None)
    plan.tighten(DrainPlan("Deleted", "Drained", deadline=200.0, settle=0.0, stop_by=None))
    assert (100.0, 0.0, None) == (plan.deadline, plan.settle, plan.stop_by)
    plan.tighten(DrainPlan("SIGTERM", "Terminated", deadline=15.0, settle=1.0, stop_by=25.0))
    assert (15.0, 0.0, 25.0) == (plan.deadline, plan.settle, plan.stop_by)
    assert ("Rollover", "Drained") == (plan.reason, plan.end)


@pytest.mark.parametrize(
    ("order", "understood"),
    [
        ({"id": "1", "type": "drain", "reason": "X", "deadline": 7}, {"reason": "X", "deadline": 7.0}),
        ({"id": "1", "type": "drain", "deadline": -1}, {"reason": "drain", "deadline": 0.0}),
        ({"id": "1", "type": "drain", "deadline": "7"}, None),
        ({"id": "1", "type": "dance", "deadline": 7}, None),
        ("drain", None),
    ],
)
def test_only_orders_that_the_agent_knows_are_taken(order: Any, understood: Any) -> None:
    assert understood == drain_order(order)


def test_a_controller_on_loopback_keeps_the_engine_on_loopback() -> None:
    places = Addresses("https://127.0.0.1:1")
    places.update("10.0.0.7")

    assert ("127.0.0.1", "127.0.0.1") == (places.bind, places.host)


def test_an_engine_on_the_network_is_found_at_the_address_of_the_latest_connection() -> None:
    places = Addresses("")
    assert ("0.0.0.0", "") == (places.bind, places.host)
    for source, host in [("127.0.0.1", "127.0.0.1"), ("10.0.0.7", "10.0.0.7"), ("127.0.0.1", "10.0.0.7")]:
        places.update(source)
        assert host == places.host


def test_only_https_addresses_are_controllers() -> None:
    assert ("10.0.0.1", 40123) == host_and_port("https://10.0.0.1:40123")
    assert ("fd00::1", 443) == host_and_port("https://[fd00::1]")
    for url in ("http://10.0.0.1:1", "https://", "10.0.0.1:1"):
        with pytest.raises(ValueError, match="not an https address"):
            host_and_port(url)


def marks(tmp_path: Path) -> list[list[str]]:
    return [line.split()[1:] for line in (tmp_path / "engine.log.times").read_text().splitlines()]


def test_how_long_the_log_was_is_written_down_when_it_has_grown(tmp_path: Path) -> None:
    log = LogKeeper(str(tmp_path / "engine.log"), limit=10)
    with open(log.open(), "wb", buffering=0) as writer:
        log.mark()
        writer.write(b"12345\n")
        log.mark()
        log.mark()
    os.close(log.open())
    assert [["0", "start"], ["6"], ["6", "start"]] == marks(tmp_path)
    (tmp_path / "engine.log").write_bytes(b"x" * 11)
    log.bound()
    assert [] == marks(tmp_path)
    log.mark()
    assert [] == marks(tmp_path)
