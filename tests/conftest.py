"""What holds for every tier."""

import signal
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# What computes and needs the machine for itself no more than any program does.
SIDE_BY_SIDE = ("unit", "scenario", "integration/cli")

# A shell that starts the tests in the background has them ignore SIGINT, and what they start would inherit that: Ctrl-C could not be
# tried. A signal with a handler goes back to its default in a new program.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of two processes (`hack/test`) one runs all that starts daemons, watches processes or waits for moments, one after the other."""
    for item in items:
        path = item.path.relative_to(TESTS).as_posix()
        group = path if path.startswith(SIDE_BY_SIDE) else "one after the other"
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have measured and recorded as "figures": what a test prints is not shown when it passes, and by two processes never."""
    found = [
        str(value)
        for report in terminalreporter.getreports("passed")
        if report.when == "call"
        for name, value in report.user_properties
        if name == "figures"
    ]
    if found:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(found))
