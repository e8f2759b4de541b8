"""Exit codes are a promise."""

from llmop.cli.errors import MEANINGS, ExitCode


def test_every_exit_code_is_explained() -> None:
    assert set(ExitCode) == set(MEANINGS)


def test_our_errors_leave_the_codes_below_201_to_others() -> None:
    ours = set(ExitCode) - {ExitCode.OK, ExitCode.DIFFERENT, ExitCode.INTERRUPTED, ExitCode.BROKEN_PIPE}
    assert list(range(201, 218)) == sorted(ours)
