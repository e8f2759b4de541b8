"""What the store needs of a database beyond SQL: connections for reading and writing, and errors in words."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from llmop.domain import errors


class Database(Protocol):
    """Raises errors.Unavailable for whatever keeps the database from answering."""

    installation: str
    poll_every: float | None  # seconds; None where no other process writes

    def reading(self) -> contextlib.AbstractAsyncContextManager[AsyncConnection]:
        """A connection all whose statements see the same snapshot."""
        ...

    def writing(self, *, durable: bool) -> contextlib.AbstractAsyncContextManager[AsyncConnection]:
        """A connection for one transaction. What isn't committed at the end is rolled back."""
        ...

    async def close(self) -> None: ...


@contextlib.contextmanager
def in_words(explain: Callable[[Exception], str]) -> Iterator[None]:
    """Turns errors of the database's state into Unavailable. Errors of our statements stay what they are: defects."""
    try:
        yield
    except (sa.exc.IntegrityError, sa.exc.ProgrammingError, sa.exc.DataError, sa.exc.NotSupportedError):
        raise
    except sa.exc.DBAPIError as error:
        cause = error.orig if isinstance(error.orig, Exception) else error
        raise errors.Unavailable(explain(cause)) from error
    except (sa.exc.TimeoutError, OSError) as error:
        raise errors.Unavailable(explain(error)) from error


@contextlib.asynccontextmanager
async def connected(
    open_connection: Callable[[], contextlib.AbstractAsyncContextManager[AsyncConnection]],
    explain: Callable[[Exception], str],
) -> AsyncIterator[AsyncConnection]:
    with in_words(explain):
        async with open_connection() as connection:
            yield connection
