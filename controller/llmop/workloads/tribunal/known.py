"""Which tribunals there are. The controller says it; the last good answer is on the disk, for a start while the controller is away."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import orjson
import pydantic

from llmop.domain import resources
from llmop.domain.tribunal import Tribunal
from llmop.files import whole
from llmop.manifest import convert
from llmop.workloads.refusals import Refused

LOG = logging.getLogger(__name__)

_PATIENCE_S = 3.0  # a gateway may hear of a tribunal before we do
_FIELDS = ("name", "namespace", "uid", "created_at", "spec")


class Tribunals:
    """`file` holds manifests, which are no secret, in a directory that is private."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._by_name: dict[str, Tribunal] | None = None
        self._changed = asyncio.Event()

    def load(self) -> None:
        """What was known last."""
        try:
            rows = orjson.loads(self._file.read_bytes())
            self._take([resources.Resource(kind=resources.TRIBUNAL, **row) for row in rows])
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError) as error:
            LOG.error("the last known tribunals cannot be read, waiting for the controller's: %s", error)

    async def put(self, stored: Sequence[resources.Resource]) -> None:
        """All that there are now."""
        self._take(stored)
        rows = [{name: getattr(each, name) for name in _FIELDS} for each in stored]
        try:
            await asyncio.to_thread(whole.write, self._file, orjson.dumps(rows), 0o600)
        except OSError as error:
            LOG.error("the tribunals could not be written to disk: %s", error)

    def _take(self, stored: Iterable[resources.Resource]) -> None:
        """Of two with one name the older one holds it, as everywhere."""
        by_name: dict[str, Tribunal] = {}
        for each in sorted(stored, key=lambda one: (one.created_at, one.uid)):
            try:
                by_name.setdefault(each.name, convert.tribunal(each))
            except pydantic.ValidationError as error:
                LOG.error("the tribunal %s/%s cannot be read: %s", each.namespace, each.name, error)
        self._by_name = by_name
        self._changed.set()
        self._changed = asyncio.Event()

    def has(self, name: str) -> bool:
        return self._by_name is not None and name in self._by_name

    async def find(self, name: str) -> Tribunal:
        """Raises Refused."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while not self.has(name):
                    await self._changed.wait()
        except TimeoutError:
            if self._by_name is None:
                raise Refused(
                    503, "not_known_yet", "the controller has not said yet which tribunals there are"
                ) from None
            raise Refused(
                404, "model_not_found", f"the tribunal '{name[:200]}' does not exist", "model"
            ) from None
        assert self._by_name is not None
        return self._by_name[name]
