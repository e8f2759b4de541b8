"""The controller is killed again and again; Slurm has exactly the jobs that are wanted in the end."""

from __future__ import annotations

import collections
import contextlib
import random
import threading
from collections.abc import Callable, Iterator

import pytest
from tests.e2e.installation import Installation, simulator
from tests.rigs.errors import RigError

KILLS = 30
SEED = 20240229
# Nobody probes often here: the engines and their agents share two cores with the controller.
CALM = {
    "probes": {"readiness": {"period": "10s"}, "startup": {"timeout": "120s"}},
    "terminationGracePeriod": "5s",
}


@contextlib.contextmanager
def watching_names(site: Installation) -> Iterator[dict[str, set[int]]]:
    """Looks at squeue all the time; gives the names under which two jobs ran at once, with the ids of those jobs."""
    twice: dict[str, set[int]] = {}
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.7):
            running: dict[str, set[int]] = collections.defaultdict(set)
            with contextlib.suppress(RigError):  # of a busy machine; the next look may have an answer
                for job in site.rig.squeue():
                    if job.state == "RUNNING":
                        running[job.name].add(job.id)
            twice.update({name: ids for name, ids in running.items() if len(ids) > 1})

    thread = threading.Thread(target=look, name="squeue", daemon=True)
    thread.start()
    try:
        yield twice
    finally:
        stop.set()
        thread.join(30)


class User(threading.Thread):
    """Applies, scales and deletes the deployment `many` over and over, each step until a controller has taken it."""

    def __init__(self, site: Installation) -> None:
        super().__init__(name="user", daemon=True)
        self._site = site
        self._stopped = threading.Event()
        self._random = random.Random(SEED)
        self.done: list[str] = []
        self.taken = threading.Event()  # a step was taken since somebody cleared it

    def run(self) -> None:
        while not self._stopped.is_set():
            fewer = self._random.randint(2, 8)
            steps: tuple[tuple[str, Callable[[], object]], ...] = (
                ("apply 20", lambda: self._site.apply(simulator("many", replicas=20, **CALM))),
                (f"scale {fewer}", lambda to=fewer: self._site.scale("many", to)),  # type: ignore[misc]
                ("scale 20", lambda: self._site.scale("many", 20)),
                ("delete", lambda: self._site.delete("many")),
            )
            for what, step in steps:
                self._until_taken(what, step)
                self._stopped.wait(self._random.uniform(1.0, 4.0))

    def _until_taken(self, what: str, step: Callable[[], object]) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(
                AssertionError
            ):  # no controller answers, or the old one is still being deleted
                step()
                self.done.append(what)
                self.taken.set()
                return
            self._stopped.wait(0.3)

    def stop(self) -> None:
        self._stopped.set()
        self.join(90)


@pytest.mark.timeout(600)
def test_thirty_kills_leave_exactly_the_jobs_that_are_wanted(install: Callable[..., Installation]) -> None:
    site = install()
    site.apply(simulator(replicas=2))
    site.wait_ready("sim", 2)
    randomly = random.Random(SEED)
    user = User(site)
    with site.flowing() as traffic, watching_names(site) as twice:
        traffic.phase("kills")
        user.start()
        try:
            for number in range(KILLS):
                # Every other time while the jobs of a change are being submitted or cancelled, else at any moment.
                is_in_change = number % 2 == 0
                user.taken.clear()
                if is_in_change:
                    user.taken.wait(15.0)
                threading.Event().wait(randomly.uniform(0.0, 1.5 if is_in_change else 4.0))
                site.kill_controller()
                site.start_controller(wait=False)
        finally:
            user.stop()
        traffic.phase("the end")
        site.wait("the controller to answer", site.answers, timeout=60)
        site.wait(
            "the last manifest to be taken",
            lambda: _is_taken(lambda: site.apply(simulator("many", replicas=6, **CALM), force=True)),
            timeout=60,
        )
        site.wait_ready("many", 6, timeout=120)
        running = site.wait_settled(8)
        # A submission that landed late, or a leaked job, would show by then.
        site.hold(
            "no job comes or goes",
            lambda: {job.id for job in running} == {job.id for job in site.jobs()},
            seconds=12,
        )
        wanted = {
            (each.status["jobName"], each.job_id)
            for each in site.replicas()
            if each.status["phase"] != "Ended"
        }
        assert wanted == {(job.name, job.id) for job in running}
        assert {} == twice
        print(f"       the user: {', '.join(user.done)}; the controllers: {actions(site)}")
    site.delete("many")
    site.delete("sim")
    site.wait_gone("many")
    site.wait_gone("sim")
    site.assert_nothing_left()


def actions(site: Installation) -> dict[str, int]:
    """How many passes of all controllers did what, by their log."""
    text = (site.directory / "controller-first.log").read_text()
    names = (
        "CreateReplica",
        "SubmitJob",
        "AdoptJob",
        "CancelJobs",
        "OrderDrain",
        "RecordEnd",
        "FinishDeletion",
    )
    return {name: text.count(name) for name in names}


def _is_taken(step: Callable[[], object]) -> bool:
    try:
        step()
        return True
    except AssertionError:
        return False
