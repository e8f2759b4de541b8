"""Pages of one snapshot: a listing in many pages is as consistent as one in a single page."""

import collections

from llmop.clock import Clock
from llmop.domain import resources
from llmop.domain.errors import Expired
from llmop.rpc.errors import BadRequest

_KEPT = 16
_KEPT_S = 120.0


class Snapshots:
    """Keeps the rest of a listing for two minutes, for the latest 16 callers that have not read theirs to the end."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: collections.OrderedDict[str, tuple[float, int, tuple[resources.Resource, ...]]] = (
            collections.OrderedDict()
        )

    def keep(self, revision: int, rest: tuple[resources.Resource, ...]) -> str:
        """The page token under which `take` finds `rest` again."""
        token = f"{revision}-{self._clock.suffix(12)}"
        self._kept[token] = (self._clock.monotonic() + _KEPT_S, revision, rest)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return token

    def take(self, token: str) -> tuple[int, tuple[resources.Resource, ...]]:
        """Raises Expired for a token that is not kept any more: list again."""
        revision, _, _ = token.partition("-")
        if not revision.isdecimal():
            raise BadRequest(f'page_token: "{token}" was not made by this server')
        found = self._kept.get(token)
        if found is None or found[0] < self._clock.monotonic():
            self._kept.pop(token, None)
            newest = max((kept[1] for kept in self._kept.values()), default=int(revision) + 1)
            raise Expired(int(revision), newest)
        return found[1], found[2]
