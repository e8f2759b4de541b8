"""Which models without replicas there are. The controller says it; the last good answer is on the disk, for a start while it is away."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import orjson

from llmop.domain import resources
from llmop.domain.assistant import Assistant
from llmop.domain.tribunal import Tribunal
from llmop.files import whole
from llmop.manifest import convert
from llmop.manifest import stored as manifests
from llmop.workloads.refusals import Refused

LOG = logging.getLogger(__name__)

_PATIENCE_S = 3.0  # a gateway may hear of one before we do
_FIELDS = ("name", "namespace", "uid", "created_at", "spec")


class Virtual:
    """`directory` gets a file of manifests for each kind; they are no secret, and it is private."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stored: dict[str, Sequence[resources.Resource]] = {}
        self._by_name: dict[str, Tribunal | Assistant] = {}
        self._changed = asyncio.Event()

    def load(self) -> None:
        """What was known last."""
        for kind in resources.VIRTUAL:
            try:
                rows = orjson.loads(self._file(kind).read_bytes())
                self._take(kind, [resources.Resource(kind=kind, **row) for row in rows])
            except FileNotFoundError:
                continue
            except (OSError, ValueError, TypeError) as error:
                words = f"the last known {resources.KINDS[kind].plural} cannot be read, waiting for the controller's"
                LOG.error("%s: %s", words, error)

    async def put(self, kind: str, stored: Sequence[resources.Resource]) -> None:
        """All of a kind that there are now."""
        self._take(kind, stored)
        rows = [{name: getattr(each, name) for name in _FIELDS} for each in stored]
        try:
            await asyncio.to_thread(whole.write, self._file(kind), orjson.dumps(rows), 0o600)
        except OSError as error:
            LOG.error("the %s could not be written to disk: %s", resources.KINDS[kind].plural, error)

    def _file(self, kind: str) -> Path:
        return self._directory / f"{resources.KINDS[kind].plural}.json"

    def _take(self, kind: str, stored: Sequence[resources.Resource]) -> None:
        """Of two with one name the older one holds it, as everywhere."""
        self._stored[kind] = stored
        every = [each for one in self._stored.values() for each in one]
        by_name: dict[str, Tribunal | Assistant] = {}
        for each in sorted(every, key=lambda one: (one.created_at, one.uid)):
            found = manifests.read(each, convert.VIRTUAL[each.kind])
            if found.refusal:
                LOG.error("the %s %s/%s: %s", each.kind, each.namespace, each.name, found.refusal)
            if found.value is not None:
                by_name.setdefault(each.name, found.value)
        self._by_name = by_name
        self._changed.set()
        self._changed = asyncio.Event()

    def has(self, name: str) -> bool:
        return name in self._by_name

    def all(self) -> Sequence[Tribunal | Assistant]:
        return tuple(self._by_name.values())

    def vector_stores(self) -> frozenset[str] | None:
        """What the assistants name that are stored, also those that do not answer now: another one has their name, or this version refuses
        them. None where one of them does not say it.
        """
        found: set[str] = set()
        for each in self._stored.get(resources.ASSISTANT, ()):
            names = each.spec.get("vectorStores")
            if not isinstance(names, list):
                return None
            found |= {str(name) for name in names}
        return frozenset(found)

    async def find(self, name: str) -> Tribunal | Assistant:
        """Raises Refused."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while not self.has(name):
                    await self._changed.wait()
        except TimeoutError:
            if len(self._stored) < len(resources.VIRTUAL):
                message = "the controller has not said yet which tribunals and assistants there are"
                raise Refused(503, "not_known_yet", message) from None
            message = f"there is no tribunal and no assistant '{name[:200]}'"
            raise Refused(404, "model_not_found", message, "model") from None
        return self._by_name[name]
