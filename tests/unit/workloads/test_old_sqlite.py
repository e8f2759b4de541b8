"""Statements are such as the SQLite of older systems takes: Python uses the system's (RHEL 8 has 3.26, RHEL 9 3.34)."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from llmop.workloads.database import Database, File
from llmop.workloads.quota import Quota, Usage
from llmop.workloads.retrieval.chunks import Passage
from llmop.workloads.retrieval.embedded import EmbeddedStores
from llmop.workloads.retrieval.stores import Row
from llmop.workloads.retrieval.values import Document, Store
from llmop.workloads.sqlite import SqliteFile

# Since 3.35 (https://www.sqlite.org/lang_returning.html) and 3.30 (https://www.sqlite.org/lang_aggfunc.html#aggfilter).
_NEWER = re.compile(r"\bRETURNING\b|\bFILTER\s*\(", re.IGNORECASE)


async def watched(file: SqliteFile) -> list[str]:
    """Its statements from now on."""
    said: list[str] = []

    def watch(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(said.append)

    await file._run(watch)
    return said


async def test_a_passage_is_kept_without_newer_statements(tmp_path: Path) -> None:
    stores = EmbeddedStores(tmp_path / "vectors.db", 2**20)
    said = await watched(stores)
    new = Store(number=0, id="vs", owner="o", name="", model="m", created_at=1.0, active_at=1.0, dimension=2)
    store = await stores.add(new)
    document = Document(
        number=0,
        store=store.number,
        store_id=store.id,
        owner="o",
        model="m",
        file="f",
        filename="f",
        created_at=1.0,
    )
    await stores.put(store, [document])
    found = await stores.document(store, "f")
    assert found is not None
    rows = [Row(Passage(text), text, b"\0" * 8) for text in ("fox", "whale", "mill")]
    assert await stores.keep(found, 0, rows[:2])
    assert await stores.keep(found, 0, rows)  # two of which are there
    (number,) = await stores.with_words([store], ["mill"], 9)
    assert [each.text for each in await stores.passages({number: 1.0})] == ["mill"]
    assert await stores.kept(found) == ["fox", "whale", "mill"]
    await stores.close()
    assert any("INSERT INTO passages" in each for each in said)
    assert not [each for each in said if _NEWER.search(each)]


async def test_a_file_is_counted_without_newer_statements(tmp_path: Path) -> None:
    database = Database(tmp_path / "workloads.db")
    said = await watched(database)
    quota = Quota(files=9, bytes=99)
    assert await database.usage("o") == Usage(0, 0)
    for name, purpose in (("a", "batch"), ("b", "batch_output")):
        await database.add_upload(File(name, "o", purpose, name, 5, 1.0), quota, 0)
    assert await database.usage("o") == Usage(1, 10)
    await database.close()
    assert any("INSERT INTO files" in each for each in said)
    assert not [each for each in said if _NEWER.search(each)]
