"""How long an apply takes, and how many go through in a second, against the same transaction done by the database alone.

Ours: a new deployment without replicas, sent to a controller by gRPC: parsed, merged, validated, checked against what it refers to,
committed durably, read again. The controller plans each of them meanwhile. The yardstick: the rows that such an apply leaves (object,
change, counter) written by the plain driver in one durable transaction. SQLite, and Postgres beside it. Postgres needs Debian or
Ubuntu, or its programs.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import bench
import sqlalchemy as sa
from embedded import place

from llmop.api.v1 import resources_pb2
from llmop.store import migrate

sys.path.insert(0, str(bench.ROOT))

ROUNDS = 7
SINGLE = 40  # applies of a round, one after the other
TOGETHER = 80  # applies of a round by `CLIENTS` at once
CLIENTS = 8
_OBJECT = (
    *("uid", "kind", "namespace", "name", "generation", "resource_version", "created_at", "deleted_at"),
    *("labels", "annotations", "finalizers", "owner", "owned_fields", "spec", "status"),
)


class Ours:
    """Applies deployments, each under a name of its own."""

    def __init__(self, at: place.Controller) -> None:
        self._clients = [at.client() for _ in range(CLIENTS)]
        self._number = 0

    def next_name(self) -> str:
        self._number += 1
        return f"bench-{self._number}"

    def once(self, name: str, client: int = 0) -> float:
        """Milliseconds."""
        manifest = json.dumps(place.deployment(name, args=["--decode-base-ms=30"]))
        request = resources_pb2.ApplyRequest(manifest_json=manifest, field_manager="bench")
        began = time.perf_counter()
        self._clients[client].call(self._clients[client].resources.Apply, request)
        return (time.perf_counter() - began) * 1000

    def p50(self) -> float:
        return statistics.median(self.once(self.next_name()) for _ in range(SINGLE))

    def rate(self) -> float:
        """Applies a second of several clients together."""
        names = [self.next_name() for _ in range(TOGETHER)]

        def work(client: int) -> None:
            for name in names[client::CLIENTS]:
                self.once(name, client)

        began = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(work, range(CLIENTS)))
        return TOGETHER / (time.perf_counter() - began)


class Alone:
    """The same transaction by a driver. `mark` is how it writes a parameter; the rows are those of one apply of ours."""

    def __init__(
        self,
        execute: Callable[[str, tuple[Any, ...]], object],
        begin: str,
        mark: str,
        row: Mapping[str, Any],
        change: str,
    ) -> None:
        self._execute = execute
        self._begin = begin
        marks = ", ".join([mark] * len(_OBJECT))
        self._insert = f"INSERT INTO objects ({', '.join(_OBJECT)}) VALUES ({marks})"
        self._log = (
            f"INSERT INTO changes (revision, position, type, object) VALUES ({mark}, 1, 'ADDED', {mark})"
        )
        self._row = row
        self._change = change
        self._number = 0

    def once(self) -> float:
        """Milliseconds."""
        self._number += 1
        row = dict(self._row) | {"uid": f"alone-{self._number}", "name": f"alone-{self._number}"}
        began = time.perf_counter()
        self._execute(self._begin, ())
        found: Any = self._execute("UPDATE counter SET revision = revision + 1 RETURNING revision", ())
        revision = found.fetchone()[0]
        row["resource_version"] = revision
        self._execute(self._insert, tuple(row[name] for name in _OBJECT))
        self._execute(self._log, (revision, self._change))
        self._execute("COMMIT", ())
        return (time.perf_counter() - began) * 1000

    def p50(self) -> float:
        return statistics.median(self.once() for _ in range(SINGLE))


def run() -> bench.Result:
    subprocess.run([str(bench.ROOT / "hack" / "install-postgres")], check=True)
    from tests.rigs.postgres import PostgresRig

    conditions = bench.machine()
    with place.controller() as at, _sqlite(at) as alone:
        small = _rounds(at, alone)
    with PostgresRig() as rig:
        url, other = rig.database("bench"), rig.database("alone")
        with place.controller(url) as at, _postgres(at, url, other) as alone:
            big = _rounds(at, alone)
    return bench.Result(
        name="apply",
        unit="ms of an apply, median (SQLite)",
        ours=small["p50_ms"],
        peers={"the transaction alone": small["alone_ms"]},
        higher_is_better=False,
        more={"sqlite": small, "postgres": big},
        conditions={
            **conditions,
            "load_average_after": round(os.getloadavg()[0], 2),
            "rounds": ROUNDS,
            "applies_a_round": SINGLE + TOGETHER,
            "clients_of_the_rate": CLIENTS,
        },
    )


def _rounds(at: place.Controller, alone: Alone) -> dict[str, float]:
    ours = Ours(at)
    ours.once(ours.next_name())  # what is made once is there
    alone.once()
    values = bench.interleave(ROUNDS, {"p50_ms": ours.p50, "per_s": ours.rate, "alone_ms": alone.p50})
    middle = bench.medians(values)
    alone_per_s = 1000 / middle["alone_ms"]
    return {
        **{name: round(value, 2) for name, value in middle.items()},
        "alone_per_s": round(alone_per_s, 1),
        "rate_ratio": round(middle["per_s"] / alone_per_s, 2),
    }


@contextlib.contextmanager
def _sqlite(at: place.Controller) -> Iterator[Alone]:
    """In a file of its own beside the controller's."""
    path = at.state.parent / "alone.db"
    migrate.upgrade(sa.URL.create("sqlite", database=str(path)), {})
    with contextlib.closing(sqlite3.connect(at.state / "llmop.db")) as theirs:
        row, change = _sample(at, theirs.execute)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            database.execute(f"PRAGMA {pragma}")
        yield Alone(database.execute, "BEGIN IMMEDIATE", "?", row, change)


@contextlib.contextmanager
def _postgres(at: place.Controller, url: str, other: str) -> Iterator[Alone]:
    """In a database of its own, `other`, of the same server as the controller's, `url`."""
    migrate.upgrade(sa.make_url(other))
    with _psycopg(url) as theirs:
        row, change = _sample(at, theirs.execute)
    with _psycopg(other) as database:
        yield Alone(database.execute, "BEGIN", "%s", row, change)


@contextlib.contextmanager
def _psycopg(url: str) -> Iterator[Any]:
    """The plain driver's connection."""
    engine = sa.create_engine(url)
    connection: Any = engine.raw_connection().driver_connection
    connection.autocommit = True  # it begins no transactions by itself
    try:
        yield connection
    finally:
        engine.dispose()


def _sample(at: place.Controller, ask: Callable[[str], Any]) -> tuple[dict[str, Any], str]:
    """The object and the change that an apply leaves."""
    Ours(at).once("sample")
    row = ask(f"SELECT {', '.join(_OBJECT)} FROM objects WHERE name = 'sample'").fetchone()
    change = ask("SELECT object FROM changes WHERE type = 'ADDED' ORDER BY revision DESC").fetchall()
    return dict(zip(_OBJECT, row, strict=True)), next(text for (text,) in change if '"sample"' in text)
