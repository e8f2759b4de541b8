"""What all routes share: what is kept, the engines, whose request it is, and pages of lists."""

import dataclasses
import hashlib
from typing import Any, NamedTuple

from starlette.requests import Request

from llmop.clock import Clock
from llmop.workloads.calls import Caller, Talker
from llmop.workloads.database import Database
from llmop.workloads.engine import Engine
from llmop.workloads.known import Virtual
from llmop.workloads.refusals import invalid
from llmop.workloads.retrieval.ingest import Ingest
from llmop.workloads.retrieval.search import Search
from llmop.workloads.retrieval.stores import Stores
from llmop.workloads.shelf import Shelf

_BEARER = "Bearer "


@dataclasses.dataclass(kw_only=True, slots=True)
class Service:
    """`caller` asks for rows, which can wait; `people` for what somebody waits for."""

    database: Database
    shelf: Shelf
    engine: Engine
    caller: Caller
    people: Talker
    virtual: Virtual
    stores: Stores
    ingest: Ingest
    search: Search
    clock: Clock


def key_of(request: Request) -> str:
    """The client's key, "" at the door without one. The gateway has checked it, and sends it in this one form."""
    return request.headers.get("authorization", "").removeprefix(_BEARER)


def owner_of(request: Request) -> str:
    """Whose files and batches these are: a key has 256 random bits, so its hash tells nothing of it."""
    return hashlib.sha256(key_of(request).encode()).hexdigest()


class Page(NamedTuple):
    after: str
    limit: int

    def answer(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """`items` holds one more than were asked for where there are more."""
        shown = items[: self.limit]
        return {
            "object": "list",
            "data": shown,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
            "has_more": len(items) > self.limit,
        }


def page_of(request: Request, *, most: int, usual: int) -> Page:
    """Raises Refused."""
    text = request.query_params.get("limit", str(usual))
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
        raise invalid("limit", f"must be a number from 1 to {most}")
    return Page(request.query_params.get("after", ""), int(text))
