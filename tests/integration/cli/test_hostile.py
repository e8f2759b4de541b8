"""Hostile manifests through the real `llmctl apply`, to a real control server."""

import re
import shutil
from pathlib import Path

import pytest
from tests.integration.cli.conftest import Transcript, World

FOLDER = Path(__file__).parents[2] / "data" / "manifests" / "hostile"
FILES = sorted(path for path in FOLDER.iterdir() if path.suffix != ".expected")
BAD_REQUEST = 207


# Refused by the controller, and left out by llmctl: so that what `get -o yaml` has printed can be applied.
LEFT_OUT = {"metadata-is-ours", "status-is-ours"}
# Each is in order, and both together are not: the transcript below says it.
TOGETHER = {"yaml-two-documents-of-one-name"}


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.stem not in TOGETHER], ids=lambda path: path.stem
)
def test_apply_refuses_a_hostile_manifest_in_the_words_beside_it(path: Path, world: World) -> None:
    world.base()
    expected = path.with_suffix(".expected").read_text(encoding="utf-8").splitlines()
    refused = [line for line in expected if not line.startswith("accepted: ")]

    # What is in order by itself may still be none of this cluster.
    outcome = world.llmctl("apply", f"--dry-run={'server' if refused else 'client'}", "-f", str(path))

    said = [line.removeprefix("* ").removeprefix(f"{FOLDER}/") for line in outcome.stderr.splitlines()]
    said = [line for line in said if re.match(r"\S+:\d+:\d+: ", line)]
    if path.stem in LEFT_OUT or not refused:
        assert (0, []) == (outcome.code, said)
    else:
        assert outcome.code == BAD_REQUEST
        # What others refer to is checked first, wherever it stands.
        assert sorted(refused) == sorted(line for line in said if "there is no " not in line)


def test_apply_what_is_hostile(transcript: Transcript) -> None:
    transcript.world.base()
    for name in (
        "yaml-bomb-of-aliases.yaml",
        "yaml-keys-that-look-alike.yaml",
        "yaml-latin-1.yaml",
        "yaml-python-object.yaml",
        "yaml-two-documents-of-one-name.yaml",
        "yaml-utf-16.yaml",
        "json-trailing-garbage.json",
        "arguments-arrive-verbatim.yaml",
        "yaml-dos-line-ends-are-fine.yaml",
    ):
        shutil.copy(FOLDER / name, transcript.world.directory)
        transcript.run("apply", "-f", str(transcript.world.directory / name))
    megabytes = f"metadata:\n  name: {'x' * 5_000_000}\n"
    transcript.run("apply", "-f", transcript.write("megabytes.yaml", megabytes))
    transcript.run("get", "md", "x", "-o", "jsonpath={.spec.args}")
