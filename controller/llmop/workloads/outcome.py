"""From results to files: written as often as it takes, under names that were settled before."""

import asyncio
from collections.abc import AsyncIterator

from llmop.workloads.answers import unanswered
from llmop.workloads.batch import Batch, Status
from llmop.workloads.database import OUTPUT, Database, File
from llmop.workloads.shelf import Shelf

_AT_ONCE = 200

# The words of OpenAI's error files.
_LEFT_OUT = {
    Status.EXPIRED: (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    Status.CANCELLED: ("batch_cancelled", "The batch was cancelled before this request was executed."),
    Status.FAILED: ("batch_failed", "The batch failed before this request was executed."),
}


def row_name(batch: Batch, line: int) -> str:
    return f"batch_req_{batch.id.removeprefix('batch_')}_{line}"


async def write(
    batch: Batch, database: Database, shelf: Shelf, now: float, longest_s: float
) -> tuple[list[File], int, int]:
    """Makes the files of a batch that is being ended, which are kept for `longest_s` seconds at most; gives those that have lines, and how
    many lines the output and the errors have.

    Raises OSError and sqlite3.Error.
    """
    completed = await _write(batch.output_file, _results(batch, database, failed=False), shelf)
    failed = await _write(batch.error_file, _errors(batch, database), shelf)
    files = []
    for name, kind, lines in ((batch.output_file, "output", completed), (batch.error_file, "error", failed)):
        if lines:
            size = shelf.path(name).stat().st_size
            expires_at = now + min(longest_s, longest_s if batch.keep_s is None else batch.keep_s)
            filename = f"{batch.id}_{kind}.jsonl"
            files.append(File(name, batch.owner, OUTPUT, filename, size, now, expires_at))
        else:
            shelf.remove([name])
    return files, completed, failed


async def _write(name: str, pages: AsyncIterator[list[bytes]], shelf: Shelf) -> int:
    lines = 0
    draft = shelf.draft(name)
    try:
        async for page in pages:
            lines += len(page)
            await asyncio.to_thread(draft.write, b"".join(line + b"\n" for line in page))
        await asyncio.to_thread(draft.keep)
    except BaseException:
        draft.drop()
        raise
    return lines


async def _results(batch: Batch, database: Database, *, failed: bool) -> AsyncIterator[list[bytes]]:
    after = 0
    while page := await database.results(batch.number, failed=failed, after=after, limit=_AT_ONCE):
        after = page[-1][0]
        yield [content for _, content in page]


async def _errors(batch: Batch, database: Database) -> AsyncIterator[list[bytes]]:
    """Those that failed, then those that were never answered."""
    async for page in _results(batch, database, failed=True):
        yield page
    assert batch.ending is not None
    # A batch that never began has nothing to say of its rows; one that was finished has answers to all of them.
    if not batch.is_validated or batch.ending not in _LEFT_OUT:
        return
    code, message = _LEFT_OUT[batch.ending]
    after = 0
    while rows := await database.unanswered(batch.number, after):
        after = rows[-1][0]
        yield [unanswered(row_name(batch, line), custom_id, code, message) for line, custom_id in rows]
