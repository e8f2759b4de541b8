"""Rows of a store in a file, changed beneath all rules: as another version has left them, or a fault of the disk."""

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

GARBAGE = '{"runtime": "toy", '  # no JSON


def put(file: Path, kind: str, name: str, spec: Any) -> None:
    """`spec` is text that stands there as it is, or what is written as JSON."""
    text = spec if isinstance(spec, str) else json.dumps(spec)
    with contextlib.closing(sqlite3.connect(file)) as database:
        changed = database.execute(
            "UPDATE objects SET spec = ? WHERE kind = ? AND name = ?", (text, kind, name)
        ).rowcount
        database.commit()
    assert changed == 1
