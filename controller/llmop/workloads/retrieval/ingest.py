"""Takes documents to their end: read, cut, embedded, kept. It may be killed at any moment, and goes on where it was."""

import asyncio
import logging
import sqlite3
from typing import NamedTuple

import numpy as np

from llmop.domain import os_errors
from llmop.domain.errors import Unavailable
from llmop.workloads.answers import Answer
from llmop.workloads.calls import ANSWER_LIMIT, Caller
from llmop.workloads.database import Database
from llmop.workloads.judgement import Again, GiveUp, Keep, Outcome, judge, owner_is_gone, refused_us
from llmop.workloads.quota import Quota
from llmop.workloads.retrieval import document as documents
from llmop.workloads.retrieval import embedding
from llmop.workloads.retrieval.chunks import Cut
from llmop.workloads.retrieval.embedding import Vectors
from llmop.workloads.retrieval.stores import NUMBER, Row, Stores
from llmop.workloads.retrieval.values import Document, Problem
from llmop.workloads.shelf import Shelf

LOG = logging.getLogger(__name__)

_AT_ONCE = 2  # documents that are worked on; more of them get nothing done sooner
# With those that wait for a model: in all, for one model, and of one owner for one model. A model that is away keeps no other one out,
# and who waits keeps its passages on the disk, tens of megabytes for the largest.
_MOST, _MOST_OF_MODEL, _MOST_OF_ONE = 16, 12, 4
_BATCH = 32  # passages that a model embeds at once
_NUMBER_BYTES = 32  # of an answer, for each number of a vector: more than 17 digits, sign, point, exponent, comma and space take
_AGAIN_S = 5.0
_TIDY_S = 60.0
_TIDY_PAUSE_S = 0.05  # between two steps: others use the same file
_MOST_TRIES = 5  # without that anything more of it was kept: one that kills this process must end some time
_KEY_AGAIN_S = 10.0  # the gateway reads its keys once a second
_OWNER_TRIES = 6  # a gateway that has just begun, or hears of a new key last, ends nothing
_NO_KEY = "the gateway does not take the key of llmop workloads"
_SHORTEST = (
    200  # characters; a passage that is too long for its model is embedded by its beginning, but not by less
)


class Failed(Exception):
    """The document cannot be embedded."""


class Unwanted(Exception):
    """The document was taken away, or cancelled."""


class _Planned(NamedTuple):
    """What is still to be kept of a document, in bytes of vectors."""

    store: int
    owner: str
    bytes: int


class Ingest:
    def __init__(
        self, stores: Stores, database: Database, shelf: Shelf, caller: Caller, quota: Quota
    ) -> None:
        self._stores = stores
        self._quota = quota
        self._database = database
        self._shelf = shelf
        self._caller = caller
        self._news = asyncio.Event()
        self._under_way: dict[int, tuple[str, str]] = {}  # with their owners and models
        self._waiting: dict[int, str] = {}
        self._planned: dict[int, _Planned] = {}

    def wake(self) -> None:
        """There is a new document."""
        self._news.set()

    def waiting(self, document: Document) -> str:
        """Why nothing goes on with a document at the moment, in words that stay the same as long as the reason does."""
        return self._waiting.get(document.number, "")

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tidy_again_and_again())
            while True:
                self._news.clear()
                for number, owner, model in await self._due():
                    if number not in self._under_way and self._has_room(owner, model):
                        self._under_way[number] = owner, model
                        group.create_task(self._see_to(number))
                await self._news.wait()

    def _has_room(self, owner: str, model: str) -> bool:
        working = len(self._under_way.keys() - self._waiting.keys())
        ways = list(self._under_way.values())
        return (
            working < _AT_ONCE
            and len(ways) < _MOST
            and sum(each == model for _, each in ways) < _MOST_OF_MODEL
            and ways.count((owner, model)) < _MOST_OF_ONE
        )

    def _wait_for(self, number: int, why: str) -> None:
        is_new = number not in self._waiting
        self._waiting[number] = why
        if is_new:
            self._news.set()  # another one can begin

    async def _due(self) -> list[tuple[int, str, str]]:
        while True:
            try:
                return await self._stores.due(_MOST_OF_ONE)
            except (sqlite3.Error, Unavailable) as error:
                LOG.error("vector stores cannot be read: %s", error)
                await asyncio.sleep(_AGAIN_S)

    async def _tidy_again_and_again(self) -> None:
        """Files that were deleted, or have expired, are taken out of all stores, also when we were killed over it."""
        while True:
            try:
                gone = await self._stores.files() - await self._database.contents()
                if gone:
                    await self._stores.forget_files(sorted(gone))
                while await self._stores.tidy():  # noqa: ASYNC110  # a pause, for others
                    await asyncio.sleep(_TIDY_PAUSE_S)
            except (sqlite3.Error, Unavailable) as error:
                LOG.error("vector stores cannot be tidied up: %s", error)
            await asyncio.sleep(_TIDY_S)

    async def _see_to(self, number: int) -> None:
        """Whatever stands in the way (a full disk, say) is tried again, and is no other document's trouble."""
        is_first = True
        try:
            while True:
                try:
                    await self._take(number, is_first)
                    return
                except (OSError, sqlite3.Error, Unavailable) as error:
                    words = os_errors.sentence(error) if isinstance(error, OSError) else str(error)
                    LOG.error("document %d does not go on: %s", number, words)
                    self._wait_for(number, words)
                is_first = False
                await asyncio.sleep(_AGAIN_S)
        finally:
            self._waiting.pop(number, None)
            self._planned.pop(number, None)
            del self._under_way[number]
            self._news.set()

    async def _take(self, number: int, is_first: bool) -> None:
        begun = await self._stores.begin(number, counts=is_first)
        if begun is None:
            return
        document, tries = begun
        try:
            if tries > _MOST_TRIES:
                raise Failed(f"it was begun {_MOST_TRIES} times, and something went down over it each time")
            if await self._database.file(document.owner, document.file) is None:
                await self._stores.remove_document(document)
                return
            try:
                cut = document.cut or Cut()
                async with documents.read(
                    self._shelf.path(document.file), document.filename, cut
                ) as passages:
                    is_done = await self._embed(document, passages)
            except FileNotFoundError:
                raise Failed("the content of the file is not there any more") from None
            if is_done:
                await self._stores.end(document)
        except Unwanted:
            return
        except documents.Refused as refused:
            await self._stores.end(document, refused.problem)
        except Failed as failed:
            await self._stores.end(document, Problem("server_error", str(failed)))
        except (OSError, sqlite3.Error, Unavailable):
            raise
        except Exception:  # a fault of ours is no other document's trouble
            LOG.exception("document %d cannot be taken in", number)
            await self._stores.end(
                document, Problem("server_error", "llmop has failed over it; its log says how")
            )

    async def _embed(self, document: Document, passages: documents.Passages) -> bool:
        """Whether all of it is kept; False where nothing is to be done for it any more. Raises Failed, Unwanted."""
        kept = await self._stores.kept(document)
        begun = len(kept)
        if not await passages.begin_with(kept):
            await self._stores.clear(document)
            begun = 0
        del kept
        title = document.filename.rpartition(".")[0].replace("-", " ").replace("_", " ")
        dimension = await self._stores.dimension(document.store)
        position = begun
        while position < passages.number:
            part = await passages.part(position, _at_once(dimension))
            texts = [each.embedded(title) for each in part]
            vectors = await self._vectors(document, texts)
            dimension = await self._settled(document, vectors.shape[1])
            more = (passages.number - position) * (vectors[0].nbytes + NUMBER)
            await self._have_room(document, more, position == begun)
            rows = [Row(*each) for each in zip(part, texts, (one.tobytes() for one in vectors), strict=True)]
            if not await self._stores.keep(document, position, rows):
                return False
            position += len(part)
        return True

    async def _settled(self, document: Document, number: int) -> int:
        """The dimension of the store. Raises Failed where vectors of `number` numbers do not fit into it."""
        if number > self._stores.most_numbers:
            raise Failed(
                f"the model '{document.model}' gives vectors of {number} numbers; at most {self._stores.most_numbers} are kept"
            )
        dimension = await self._stores.settle(document.store, number)
        if dimension != number:
            raise Failed(
                f"the model '{document.model}' gives vectors of {number} numbers, and the store has such of {dimension}"
            )
        return dimension

    async def _have_room(self, document: Document, more: int, is_first: bool) -> None:
        """For `more` bytes of vectors that are to be kept, beside those of the others that are being kept. Raises Failed."""
        if is_first:
            in_store = await self._stores.vector_bytes(document.store)
            owned = (await self._database.usage(document.owner)).bytes
            owned += await self._stores.owned_bytes(document.owner)
            # From here on nothing is awaited: of two that come at once, one sees the other.
            others = [each for number, each in self._planned.items() if number != document.number]
            in_store += sum(each.bytes for each in others if each.store == document.store)
            owned += sum(each.bytes for each in others if each.owner == document.owner)
            most = self._stores.most_bytes
            if most is not None and in_store + more > most:
                raise Failed(f"the vector store is full: its vectors would take more than {most} bytes")
            if owned + more > self._quota.bytes:
                raise Failed(self._quota.too_much)
        self._planned[document.number] = _Planned(document.store, document.owner, more)

    async def _vectors(self, document: Document, texts: list[str]) -> Vectors:
        outcome = await self._ask(document, texts)
        found = (
            outcome
            if not isinstance(outcome, Answer) or outcome.status != 200
            else embedding.read(outcome, len(texts))
        )
        if isinstance(found, embedding.Embedded):
            return found.vectors
        if isinstance(found, str):
            raise Failed(f"{found} (model '{document.model}')")
        if isinstance(found, Answer) and found.status not in (401, 403, 404):
            if len(texts) > 1:  # one of them may be too long, or not to the model's taste
                return np.concatenate([await self._vectors(document, [each]) for each in texts])
            if len(texts[0]) > _SHORTEST:
                return await self._vectors(document, [texts[0][: len(texts[0]) * 3 // 4]])
        raise Failed(f"the model '{document.model}' made no embeddings: {embedding.why_not(found)}")

    async def _ask(self, document: Document, texts: list[str]) -> Outcome:
        """Waits for a model that is busy or away, as long as the document is wanted. Raises Failed, Unwanted."""
        failures = unknown = 0
        while True:
            outcome = await self._caller.ask(
                embedding.URL, embedding.body(document.model, texts), owner=document.owner
            )
            verdict: Keep | GiveUp | Again
            if owner_is_gone(outcome):
                unknown += 1
                if unknown > _OWNER_TRIES:
                    raise Failed("the key that the file belongs to is not known any more")
                verdict = Again(
                    _KEY_AGAIN_S, True, "the gateway does not know the key that the file belongs to"
                )
            elif refused_us(outcome):
                verdict = Again(_KEY_AGAIN_S, True, _NO_KEY)
            else:
                verdict = judge(outcome, failures)
            if isinstance(verdict, Keep):
                self._waiting.pop(document.number, None)
                return verdict.answer
            if isinstance(verdict, GiveUp):
                raise Failed(verdict.message)
            failures += 0 if verdict.slow else 1
            if verdict.why:
                if document.number not in self._waiting:
                    await self._stores.is_harmless(document)
                self._wait_for(document.number, verdict.why)
            if not await self._stores.is_wanted(document):
                raise Unwanted
            await asyncio.sleep(verdict.after_s)


def _at_once(dimension: int) -> int:
    """Passages whose vectors fit into one answer. The first of a store, alone, tells how long they are."""
    return min(_BATCH, max(1, ANSWER_LIMIT // (dimension * _NUMBER_BYTES))) if dimension else 1
