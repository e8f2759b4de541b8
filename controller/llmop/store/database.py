"""What the store needs of a database beyond SQL: transactions to read and to write in, and errors in words."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import sqlalchemy as sa

from llmop.domain import errors

Result = TypeVar("Result")


class Database(Protocol):
    """Work is handed over as a plain function of a connection. Raises errors.Unavailable for whatever keeps it from being done."""

    installation: str

    def is_alone(self) -> bool:
        """Whether nobody but this process can commit. Raises Unavailable where that was true and cannot be said any more."""
        ...

    async def read(self, ask: Callable[[sa.Connection], Result]) -> Result:
        """Runs `ask`; all its statements see the same snapshot."""
        ...

    async def write(self, change: Callable[[sa.Connection], Result], *, durable: bool) -> Result:
        """Runs `change` in a transaction of its own. What it doesn't commit itself is rolled back."""
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
