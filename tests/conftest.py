"""What holds for every tier."""

import signal

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

# What looks at the whole machine and would find the others: at its mounts (tests/e2e/installation.py), at the ports of all engines of an
# account (tests/e2e/thief.py); and what mounts something. All else has processes, ports, folders and a Slurm or Postgres of its own, and needs
# the machine for itself no more than any program does. It stays so where tests look for what names their folder, never for all of a kind.
ONE_AFTER_THE_OTHER = ("e2e/", "contract/test_store_bindfs.py", "integration/agent/test_container.py")

# The same examples everywhere, however long one takes: a busy machine is no fault, and what fails can be run again.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")

# A shell that starts the tests in the background has them ignore SIGINT, and what they start would inherit that: Ctrl-C could not be
# tried. A signal with a handler goes back to its default in a new program.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Of several processes (`hack/test`) one runs what is in `ONE_AFTER_THE_OTHER`; the others take file by file, and so does it afterwards.

    gRPC's threads are in any of them: no test may fork in full (`tests.rigs.processes.as_account`).
    """
    return _Scheduling(config, log)


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Files are taken one by one, but for those that must not meet. xdist's own groups (`loadgroup`) are none with pytest 9.2: the mark does
    not get into the names any more, and nothing says so.
    """

    def remove_node(self, node: WorkerController) -> str | None:
        """A process is over. Of one that died only what is not done goes to the next: xdist hands out the groups that are done too, and
        whoever is given such a group has nothing to report, is given no other, and the run does not end.
        """
        groups = self.assigned_work[node]
        for name in [name for name, tests in groups.items() if all(tests.values())]:
            del groups[name]
        crashed: str | None = super().remove_node(node)
        return crashed

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0].removeprefix("tests/")
        return "one after the other" if path.startswith(ONE_AFTER_THE_OTHER) else path


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
