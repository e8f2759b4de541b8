"""Exit codes are a promise."""

from llmop.cli import client
from llmop.cli.errors import MEANINGS, ExitCode


def test_every_exit_code_is_explained() -> None:
    assert set(ExitCode) == set(MEANINGS)


def test_our_errors_leave_the_codes_below_201_to_others() -> None:
    ours = set(ExitCode) - {ExitCode.OK, ExitCode.DIFFERENT, ExitCode.INTERRUPTED, ExitCode.BROKEN_PIPE}
    assert list(range(201, 218)) == sorted(ours)


def test_a_socket_of_another_account_is_not_a_controller_that_is_away() -> None:
    denied = (
        "failed to connect to all addresses; last error: UNKNOWN: unix:/a: connect: Permission denied (13)"
    )
    assert "may not be used by this account" in client.unreachable("unix:///a", denied)
    assert "is it running?" in client.unreachable("unix:///a", "connect: Connection refused (111)")
