"""What the benchmarks read out of sdiag."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hack.bench.fleets import sdiag

RECORDED = Path(__file__).parents[2] / "data" / "slurm" / "22.05" / "other-outcomes.json"


def test_requests_are_counted_by_account() -> None:
    text = json.loads(RECORDED.read_text())["sdiag"]["stdout"]
    assert {"root": 114, "llmoptest": 81} == sdiag.by_account(text)


def test_a_text_without_that_section_is_no_answer() -> None:
    with pytest.raises(ValueError, match="no section 'statistics by user'"):
        sdiag.by_account("slurm_get_statistics error: Unable to contact slurm controller")
