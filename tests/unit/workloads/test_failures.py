"""What clients are told where the places fail that things are kept in."""

from __future__ import annotations

import sqlite3

import pytest

from llmop.domain.errors import Unavailable
from llmop.workloads import failures
from llmop.workloads.retrieval.postgres import TooSlow


@pytest.mark.parametrize(
    "error, status, code, words",
    [
        (sqlite3.OperationalError("disk full"), 507, "store_failed", "does not take it: disk full"),
        (Unavailable("postgresql://secret-host: gone"), 503, "vectors_away", "does not answer: try again"),
        (
            TooSlow("postgresql://secret-host: slow", "lock_timeout"),
            503,
            "vectors_away",
            "took longer than its lock_timeout allows: try again",
        ),
    ],
)
def test_it_is_said_without_the_names_of_machines(
    error: Exception, status: int, code: str, words: str
) -> None:
    refused = failures.refusal(error, "GET /v1/vector_stores")
    assert (status, code) == (refused.status, refused.code)
    assert words in str(refused)
    assert "secret-host" not in str(refused)
