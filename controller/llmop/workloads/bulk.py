"""/v1/bulk: requests in, one a line; answers out, one a line, as they come. Nothing of it is kept.

The whole request is read before the first answer goes out: a client that writes everything before it reads would else wait for us as we
wait for it. It lies on the disk meanwhile, so that memory does not grow with it.
"""

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from typing import BinaryIO

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from llmop.workloads.answers import answered, unanswered
from llmop.workloads.gate import Gate
from llmop.workloads.intake import MOST_MODELS
from llmop.workloads.judgement import Again, GiveUp, Keep, judge
from llmop.workloads.lines import Row, parse
from llmop.workloads.refusals import Refused, invalid
from llmop.workloads.service import Service, key_of, number_of, owner_of
from llmop.workloads.shelf import lines
from llmop.workloads.upload import FILE_LIMIT

_MOST_AT_ONCE = 64
_USUAL_AT_ONCE = 8
_MOST_REQUESTS = 32  # at once, each with a file of its own and as many lines in memory as it asks at once
_PATIENCE_S = 600.0  # for a model that is full or away: then that is the row's answer
_NDJSON = "application/x-ndjson"


def routes(service: Service) -> list[Route]:
    under_way = asyncio.Semaphore(_MOST_REQUESTS)

    async def bulk(request: Request) -> Response:
        at_once = number_of(request, "concurrency", most=_MOST_AT_ONCE, usual=_USUAL_AT_ONCE)
        ordered = _ordered(request)
        if under_way.locked():
            raise Refused(
                429, "too_many_requests", f"{_MOST_REQUESTS} bulk requests are under way: try again later"
            )
        await under_way.acquire()
        try:
            file = await _read(request, service)
        except BaseException:
            under_way.release()
            raise
        # Who has come without a key is asked for as that nobody, by us.
        key = key_of(request) or None
        run = _Bulk(service, key, None if key else owner_of(request), at_once, ordered=ordered)
        return _Lines(run.answers(file), under_way, file)

    return [Route("/v1/bulk", bulk, methods=["POST"])]


class _Lines(StreamingResponse):
    """Whatever becomes of its client: afterwards nothing is asked any more, and the next request may come."""

    def __init__(self, answers: AsyncGenerator[bytes], under_way: asyncio.Semaphore, file: BinaryIO) -> None:
        super().__init__(answers, media_type=_NDJSON)
        self._answers = answers
        self._under_way = under_way
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._under_way.release()
            self._file.close()
            await self._answers.aclose()


def _ordered(request: Request) -> bool:
    text = request.query_params.get("ordered", "false")
    if text not in ("true", "false"):
        raise invalid("ordered", "must be true or false")
    return text == "true"


async def _read(request: Request, service: Service) -> BinaryIO:
    """Into a file without a name: it is gone with us, however we end."""
    file = tempfile.TemporaryFile(dir=service.shelf.directory)  # noqa: SIM115  (the answer closes it)
    size = 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size > FILE_LIMIT:
                raise Refused(
                    413, "body_too_large", f"the request is larger than {FILE_LIMIT} bytes: split it"
                )
            await asyncio.to_thread(file.write, piece)
        file.seek(0)
    except OSError as error:
        file.close()
        message = f"the request could not be stored: {error.strerror or error}"
        raise Refused(507, "insufficient_storage", message) from error
    except BaseException:
        file.close()
        raise
    return file


class _Bulk:
    """One request. A row is in memory from its turn to the moment its answer went out."""

    def __init__(
        self, service: Service, key: str | None, owner: str | None, at_once: int, *, ordered: bool
    ) -> None:
        self._service = service
        self._key = key
        self._owner = owner
        self._at_once = at_once
        self._ordered = ordered
        self._gates: dict[str, Gate] = {}
        self._loop = asyncio.get_running_loop()

    async def answers(self, file: BinaryIO) -> AsyncGenerator[bytes]:
        """Lines, each with its newline. Closed early, it takes back what it has asked."""
        under_way: dict[asyncio.Task[bytes], None] = {}  # in the order of their lines
        rows = lines(file)
        try:
            while True:
                while len(under_way) < self._at_once:
                    following = await asyncio.to_thread(next, rows, None)
                    if following is None:
                        break
                    number, _, line, _ = following
                    under_way[asyncio.create_task(self._answer(number, line))] = None
                if not under_way:
                    return
                first = next(iter(under_way))
                await asyncio.wait(
                    [first] if self._ordered else list(under_way), return_when=asyncio.FIRST_COMPLETED
                )
                for task in [task for task in under_way if task.done()]:
                    if self._ordered and task is not next(iter(under_way)):
                        break
                    del under_way[task]
                    yield task.result() + b"\n"
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _answer(self, number: int, line: bytes) -> bytes:
        """The line that answers a line."""
        name = f"bulk_req_{number}"
        row = parse(line, number, None)
        if not isinstance(row, Row):
            words = "; ".join(problem.message for problem in row)
            return unanswered(name, None, row[0].code, f"line {number}: {words}")
        verdict = await self._ask(row)
        if isinstance(verdict, Keep):
            return answered(name, row.custom_id, verdict.answer)
        return unanswered(name, row.custom_id, verdict.code, verdict.message)

    async def _ask(self, row: Row) -> Keep | GiveUp:
        if row.model not in self._gates and len(self._gates) == MOST_MODELS:
            return GiveUp("too_many_models", f"a request asks at most {MOST_MODELS} models")
        gate = self._gates.setdefault(row.model, Gate(self._at_once))
        deadline = self._loop.time() + _PATIENCE_S
        failures = 0
        is_first = False
        while True:
            turn = await gate.enter(first=is_first)
            is_first = True
            try:
                found = await self._service.caller.ask(row.url, row.body, self._key, self._owner)
            except BaseException:
                gate.leave(turn)
                raise
            verdict = judge(found, failures)
            if not isinstance(verdict, Again):
                gate.leave_well(turn)
                return verdict
            if verdict.slow:
                gate.leave_refused(turn, verdict.after_s, verdict.why)
            else:
                gate.leave(turn)
                failures += 1
                await asyncio.sleep(verdict.after_s)
            if self._loop.time() + verdict.after_s >= deadline:
                return GiveUp("unavailable", verdict.why or "the answer broke off again and again")
