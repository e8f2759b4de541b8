"""What operators look at: fetched from the controller while somebody looks who may, and kept for a moment only."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from starlette.responses import Response

from llmop.domain.client import ClientKey
from llmop.gateway.errors import Refusal

FRESH_S = 1.0
_GZIP_LEVEL = 1  # the text is much the same in each line: more takes longer and gains little

NOT_ALLOWED = Refusal(
    status=403,
    code="operations_not_allowed",
    message="this key may not see the operations of this installation: that takes an APIKey with spec.operations, "
    "which its administrator makes with llmctl key create NAME --operations",
)


class Overview(NamedTuple):
    """`text` is the controller's JSON, None where the controller did not answer. `heard_at` is when it last did (epoch seconds).

    `etag` is the same as long as all in it is but the time, and `now` is that time in the controller's words; "" where it does not say.
    """

    text: str | None = None
    heard_at: float | None = None
    etag: str = ""
    now: int = 0


def at(text: str, before: int, now: int) -> str:
    """The overview `text`, which begins with the time `before`, as one of the time `now`."""
    head = f'{{"now":{before},'
    return f'{{"now":{now},{text[len(head) :]}' if text.startswith(head) else text


async def answer(found: Overview, headers: Mapping[str, str]) -> Response:
    """`found`, which has a text, for a client that sends these headers. One that has it already hears only what time it is."""
    sent = {"cache-control": "no-store", "vary": "accept-encoding"}
    if found.etag:
        sent |= {"etag": f'W/"{found.etag}"', "x-llmop-now": str(found.now)}
        if found.etag in headers.get("if-none-match", ""):
            return Response(status_code=304, headers=sent)
    body = (found.text or "").encode()
    if _takes_gzip(headers.get("accept-encoding", "")):
        sent["content-encoding"] = "gzip"
        body = await asyncio.to_thread(gzip.compress, body, _GZIP_LEVEL)
    return Response(body, headers=sent, media_type="application/json")


def _takes_gzip(accepted: str) -> bool:
    """`accepted` as in RFC 9110, 12.5.3: a weight of 0 says no."""
    weights = {
        coding.strip().lower(): weight.strip().lower()
        for coding, _, weight in (each.partition(";") for each in accepted.split(","))
    }
    return weights.get("gzip", "q=0") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")


Source = Callable[[], Awaitable[Overview]]


def is_shown_to(key: ClientKey) -> bool:
    """Keys of the gateway's file are handed out to people too, so the right is an APIKey's alone."""
    return key.operations


def controller_away(heard_at: float | None, now: float) -> Refusal:
    last = (
        "and has not since this gateway began" if heard_at is None else f"and did {now - heard_at:.0f} s ago"
    )
    return Refusal(
        status=503,
        code="controller_away",
        message=f"the controller gives no overview, {last}; requests for models are served as before",
        retry_after=5,
    )


class Overviews:
    """One call of `source` for all who ask within FRESH_S of its answer, also of one that failed."""

    def __init__(self, source: Source, monotonic: Callable[[], float]) -> None:
        self._source = source
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._last: tuple[float, Overview] | None = None

    async def get(self) -> Overview:
        async with self._lock:
            if self._last is None or self._monotonic() - self._last[0] >= FRESH_S:
                found = await self._source()
                self._last = (self._monotonic(), found)
            return self._last[1]
