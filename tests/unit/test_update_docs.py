"""The generated pages of docs/ are written as a whole or not at all."""

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "hack" / "update-docs.sh"


def test_a_page_whose_generator_fails_stays_as_it_was(tmp_path: Path) -> None:
    half = tmp_path / "python"
    half.write_text('#!/bin/sh\necho "# half"\ncase "$*" in *command-page*) exit 1;; esac\n')
    half.chmod(0o755)
    reference = tmp_path / "docs" / "reference"
    reference.mkdir(parents=True)
    (reference / "llmctl.md").write_text("as it was")
    ran = subprocess.run(
        [SCRIPT, tmp_path / "docs"], env={**os.environ, "PYTHON": str(half)}, check=False, timeout=60
    )
    assert 1 == ran.returncode
    assert "as it was" == (reference / "llmctl.md").read_text()
    assert ["kinds.md", "llmctl.md"] == sorted(each.name for each in reference.iterdir())
