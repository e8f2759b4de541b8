"""Two controllers on one store: SQLite takes one, Postgres hands over; nothing is doubled either way."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable

from tests.e2e.installation import Installation, simulator
from tests.rigs.postgres import PostgresRig
from tests.rigs.processes import tail


def test_a_second_controller_on_sqlite_refuses_to_start(install: Callable[..., Installation]) -> None:
    """Whether it shares the state directory or only the database: it ends with a sentence, the first one does not notice."""
    site = install()
    site.apply(simulator(replicas=2))
    site.wait_ready("sim", 2)
    before = {job.id for job in site.wait_settled(2)}
    first = site.controllers["first"]
    with site.flowing():
        for which in ("first", "second"):
            store = f"sqlite:///{site.state('first')}/llmop.db"
            argv = ["llmop", "controller", "--state-dir", str(site.state(which)), "--store", store]
            said = site.run(argv, code=1)
            print(f"       {said.strip()}")
            assert said.startswith("error: "), said
            assert "another controller" in said, said
        assert first.daemon.alive()
        site.scale("sim", 3)
        site.wait_ready("sim", 3)
    assert before < {job.id for job in site.wait_settled(3)}


def test_a_second_controller_on_postgres_takes_over(
    install: Callable[..., Installation], postgres_rig: PostgresRig
) -> None:
    """The first one ends; agents, gateway and jobs go on; what is asked of the second happens once."""
    site = install(store=postgres_rig.database("two_controllers"))
    site.apply(simulator(replicas=3))
    site.wait_ready("sim", 3)
    before = {job.id for job in site.wait_settled(3)}
    first = site.controllers["first"]
    # Both speak for one installation: they share its certificates, as they share its database.
    shutil.copytree(site.state("first") / "tls", site.state("second") / "tls")
    for path in [site.state("second"), *site.state("second").rglob("*")]:
        shutil.chown(path, site.rig.uid, site.rig.gid)
        path.chmod(0o700 if path.is_dir() else 0o600)
    with site.flowing():
        site.start_controller("second")
        site.wait("the first one to end", lambda: not first.daemon.alive(), timeout=60)
        said = tail(site.directory / "controller-first.log", 3)
        print(f"       {said}")
        assert "took over" in said or "taken over" in said, said
        site.wait(
            "all heartbeats to reach the second one",
            lambda: (
                3 == len([one for one in site.replicas("sim", "second") if one.status["phase"] == "Ready"])
            ),
            timeout=60,
        )
        site.llmctl("scale", "md", "sim", "--replicas=4", which="second")
        site.wait_settled(4)
        threading.Event().wait(35.0)  # past the time after which silent replicas are not routed any more
        phases = [one.status["phase"] for one in site.replicas("sim", "second")]
        assert 4 * ["Ready"] == phases
    after = {job.id for job in site.wait_settled(4)}
    assert before < after
    names = [job.name for job in site.rig.squeue() if job.name.startswith("llmop-")]
    assert len(names) == len(set(names)) == 4
