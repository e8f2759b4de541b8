"""What all routes share: what is kept, the engines, whose request it is, and pages of lists."""

import dataclasses
import hashlib
from typing import Any, NamedTuple

from starlette.requests import Request

from llmop.clock import Clock
from llmop.workloads.calls import Caller, Talker
from llmop.workloads.database import Database, File
from llmop.workloads.engine import Engine
from llmop.workloads.known import Virtual
from llmop.workloads.outlook import Outlook
from llmop.workloads.quota import Quota
from llmop.workloads.refusals import invalid, no_such
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
    outlook: Outlook
    virtual: Virtual
    stores: Stores
    ingest: Ingest
    search: Search
    quota: Quota
    clock: Clock

    async def file(self, owner: str, name: str) -> File:
        """One that has not expired, swept away or not. Raises Refused."""
        found = await self.database.file(owner, name)
        if found is None or (found.expires_at is not None and found.expires_at <= self.clock.now()):
            raise no_such("file", name)
        return found


def key_of(request: Request) -> str:
    """The client's key, "" at the door without one. The gateway has checked it, and sends it in this one form."""
    return request.headers.get("authorization", "").removeprefix(_BEARER)


def owner_of(request: Request) -> str:
    """Whose files and batches these are: a key has 256 random bits, so its hash tells nothing of it."""
    return hashlib.sha256(key_of(request).encode()).hexdigest()


class Page(NamedTuple):
    after: str
    limit: int

    def answer(self, items: list[dict[str, Any]], *, backwards: bool = False) -> dict[str, Any]:
        """`items` holds one more than were asked for where there are more; `backwards`: they stand from the end of the page to its
        beginning.
        """
        shown = items[: self.limit]
        if backwards:
            shown.reverse()
        return {
            "object": "list",
            "data": shown,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
            "has_more": len(items) > self.limit,
        }


def page_of(request: Request, *, most: int, usual: int) -> Page:
    """Raises Refused."""
    return Page(request.query_params.get("after", ""), number_of(request, "limit", most=most, usual=usual))


def number_of(request: Request, name: str, *, most: int, usual: int) -> int:
    """A parameter of the address from 1 to `most`. Raises Refused."""
    text = request.query_params.get(name, str(usual))
    # Python refuses to read numbers of thousands of digits.
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
        raise invalid(name, f"must be a number from 1 to {most}")
    return int(text)
