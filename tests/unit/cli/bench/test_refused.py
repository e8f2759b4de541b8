"""A model that does not answer: what was said, and what to do."""

import pytest

from llmop.cli.bench import refused
from llmop.cli.bench.measures import Sample
from llmop.cli.errors import ExitCode


@pytest.mark.parametrize(
    ("error", "message", "words", "code"),
    [
        (
            "status 401",
            '{"error":"Unauthorized"}',
            "status 401: Unauthorized; --key-file names",
            ExitCode.UNAUTHENTICATED,
        ),
        (
            "status 404",
            '{"error":{"message":"no model `m`","code":404}}',
            "status 404: no model `m`; -m names a model",
            ExitCode.NOT_FOUND,
        ),
        ("status 404", '{"detail":"Not Found"}', "status 404: Not Found; -m names", ExitCode.NOT_FOUND),
        (
            "status 422",
            '{"error":{"code":7}}',
            'status 422: {"error":{"code":7}}',
            ExitCode.BAD_REQUEST,
        ),
        ("status 502", "<html>", "status 502: <html>", ExitCode.UNAVAILABLE),
        ("connect", "Connection refused", "connect: Connection refused; --url or", ExitCode.NETWORK),
        ("timeout", "no answer", "timeout: no answer; --timeout allows more", ExitCode.TIMEOUT),
        ("no token", "", "no token; --api names an API", ExitCode.UNAVAILABLE),
    ],
)
def test_the_error_says_where_what_and_what_to_do(
    error: str, message: str, words: str, code: ExitCode
) -> None:
    sample = Sample(due_at=0.0, ended_at=1.0, error=error, message=message)
    made = refused.error("m", "http://a:1", "/v1/chat/completions", sample)
    assert str(made).startswith(f"error: m does not answer at http://a:1/v1/chat/completions, so nothing was measured: {words}")  # fmt: skip
    assert code == made.code
