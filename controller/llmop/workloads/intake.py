"""From an input file to rows: every line is looked at before the first one is run."""

import asyncio
from collections.abc import Iterator
from itertools import islice

from llmop.workloads.batch import Batch, Problem
from llmop.workloads.database import Database, Place
from llmop.workloads.lines import Row, parse
from llmop.workloads.shelf import Shelf, lines

_AT_ONCE = 500
_MOST_PROBLEMS = 100  # that are shown
MOST_MODELS = 100  # that one batch asks


class Intake:
    """What was found in a file: the number of rows, or `problems`."""

    def __init__(self) -> None:
        self.total = 0
        self.problems: list[Problem] = []
        self.models: set[str] = set()

    @property
    def shown(self) -> tuple[Problem, ...]:
        if not self.problems and not self.total:
            return (Problem(code="empty_file", message="the input file has no lines"),)
        more = len(self.problems) - _MOST_PROBLEMS
        if more <= 0:
            return tuple(self.problems)
        rest = Problem(code="more_errors", message=f"{more} more lines have errors that are not shown")
        return (*self.problems[:_MOST_PROBLEMS], rest)


async def read(batch: Batch, database: Database, shelf: Shelf) -> Intake:
    """Raises OSError where the file cannot be read, sqlite3.Error where the rows cannot be stored."""
    await database.forget_rows(batch.number)
    intake = Intake()
    with shelf.open(batch.input_file) as file:
        places = _places(lines(file), batch.endpoint, intake)
        while some := await asyncio.to_thread(lambda: list(islice(places, _AT_ONCE))):
            for place, earlier in await database.add_rows(batch.number, some):
                message = f"the custom_id '{place.custom_id[:200]}' stands on line {earlier} already"
                problem = Problem(
                    code="duplicate_custom_id", line=place.line, param="custom_id", message=message
                )
                intake.problems.append(problem)
            intake.total += len(some)
    intake.problems.sort(key=lambda problem: problem.line or 0)
    return intake


def _places(
    numbered: Iterator[tuple[int, int, bytes, int]], endpoint: str, intake: Intake
) -> Iterator[Place]:
    for number, start, line, length in numbered:
        parsed = parse(line, number, endpoint)
        if isinstance(parsed, Row):
            intake.models.add(parsed.model)
            yield Place(number, start, length, parsed.custom_id, parsed.model)
            if len(intake.models) > MOST_MODELS:
                message = f"this is the {len(intake.models)}th model: a batch asks at most {MOST_MODELS}"
                intake.problems.append(
                    Problem(code="too_many_models", line=number, param="body.model", message=message)
                )
                return
        else:
            intake.problems += parsed
