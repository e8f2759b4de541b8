"""An engine in a real container: the same life, and hostile values that must arrive as they are."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from tests.integration.agent.controller import FakeController, Json
from tests.integration.agent.rig import ENGINE, KEY, Rig, eventually, processes_with
from tests.rigs.errors import RigError
from tests.rigs.images import engine_image

HOSTILE = [
    "$(touch {marker})",
    "`touch {marker}`",
    "'; touch {marker}; '",
    '"; touch {marker}; "',
    "a'b\"c\\d $HOME ${HOME} !! %n *",
    "two\nlines\n",
    "",
    " -e x=y",
    "ünï¢ode",
]


@pytest.fixture
def contained(rig: Rig) -> Rig:
    try:
        image = engine_image()
    except RigError as error:
        pytest.fail(f"no container image: {error}", pytrace=False)
    binds = [f"{ENGINE.parent}:{ENGINE.parent}:ro", str(rig.faults)]
    rig.engine["container"] = {"kind": "apptainer", "image": str(image), "gpu": "none", "binds": binds}
    rig.engine["argv"][0] = "python3"
    return rig


def told(rig: Rig) -> list[Json]:
    """What the engine says of its argv, environment and directory."""
    path = rig.faults / "told.json"
    answer: list[Json] = eventually(lambda: path.exists() and json.loads(path.read_text() or "null"))
    return answer


def test_an_engine_in_a_container_lives_and_ends_like_any_other(
    contained: Rig, controller: FakeController
) -> None:
    agent = contained.start()
    ready = controller.wait_for_phase("ready")
    assert 200 == contained.ask(ready["endpoint"]["port"], "/health").status
    controller.order(id="o1", type="drain", reason="ScaledDown", deadline=10)

    assert 0 == contained.end(agent)
    assert "Drained" == contained.record()["reason"]
    assert [] == contained.engines()


def test_killing_the_agent_ends_the_container(contained: Rig, controller: FakeController) -> None:
    contained.engine["argv"].append("--child")
    agent = contained.start()
    controller.wait_for_phase("ready")
    agent.send_signal(signal.SIGKILL)
    agent.wait()

    eventually(lambda: not contained.engines(), what="the end of the container")


def test_hostile_values_reach_the_engine_as_they_are_and_run_nothing(
    contained: Rig, controller: FakeController
) -> None:
    marker = contained.faults / "touched"
    values = [value.format(marker=marker) if "{marker}" in value else value for value in HOSTILE]
    written = {f"VALUE_{number}": value for number, value in enumerate(values)}
    contained.engine["env"] = {
        name: value.replace("{", "{{").replace("}", "}}") for name, value in written.items()
    }
    for value in written.values():
        contained.engine["argv"] += [f"--word={value.replace('{', '{{').replace('}', '}}')}"]
    contained.fault("tell")
    contained.start(APPTAINERENV_STRAY="x", SINGULARITYENV_STRAY="x", APPTAINER_BIND="/nowhere", SECRET="x")
    argv, environment, directory = told(contained)

    assert written == {name: environment[name] for name in written}
    assert [f"--word={value}" for value in values] == [word for word in argv if word.startswith("--word=")]
    assert not marker.exists()
    assert set() == {"STRAY", "SECRET"} & set(environment)
    assert Path(directory).is_relative_to(contained.directory / "scratch")
    assert Path(environment["HOME"]).is_relative_to(contained.directory / "scratch")
    assert "17" == environment["SLURM_JOB_ID"]


def test_the_key_reaches_the_engine_by_file_or_variable_and_stands_in_no_command_line(
    contained: Rig, controller: FakeController
) -> None:
    contained.engine["apiKeyEnv"] = "ENGINE_KEY"
    contained.fault("tell")
    contained.start()
    controller.wait_for_phase("ready")

    assert KEY == told(contained)[1]["ENGINE_KEY"]
    assert [] == processes_with(KEY)
