"""llmctl usage."""

from typing import Any

import click

from llmop.cli.errors import UsageError
from llmop.cli.session import Session, connection_options, out, parse_duration, say

_BY = ("key", "model", "hour", "day")
_AMOUNTS = ("requests", "prompt_tokens", "completion_tokens", "estimated", "limited")
_HEADERS = ("REQUESTS", "PROMPT", "COMPLETION", "ESTIMATED", "LIMITED")


@click.command("usage")
@click.option(
    "--by",
    default="key,model",
    metavar="WORDS",
    help="What there is a line for: key, model, hour, day, joined by commas, or total.  [default: key,model]",
)
@click.option(
    "--since",
    default="30d",
    metavar="WHEN",
    help="Hours that began within the last 24h or 30d, or at 2026-12-01T00:00:00Z or later.  [default: 30d]",
)
@click.option("--until", default="", metavar="WHEN", help="Hours that began before.  [default: all]")
@click.option("--key", default="", metavar="NAME", help="Only this key, as it is shown: namespace/name.")
@click.option("--model", default="", metavar="NAME", help="Only this model.")
@click.option(
    "-o", "--output", type=click.Choice(["table", "json", "csv"]), default="table", help="How it is printed."
)
@connection_options
@click.pass_obj
def command(session: Session, by: str, since: str, until: str, key: str, model: str, output: str) -> None:
    """Show what keys have used of which models.

    Requests are those that were answered; of those under ESTIMATED the engine did not say how many tokens they took. LIMITED are requests
    beyond a limit of their key. Gateways tell it every few seconds; days are those of UTC. A key of a gateway's own file has its
    bare name; what came through a gateway's private socket has none.
    """
    from llmop.api.v1 import usage_pb2

    words = [] if by == "total" else [word.strip() for word in by.split(",")]
    unknown = [word for word in words if word not in _BY]
    if unknown or ("hour" in words and "day" in words):
        raise UsageError(f'--by "{by}": write {", ".join(_BY)}, some of them joined by commas, or total')
    now = session.clock.now()
    of = usage_pb2.SumUsageRequest
    numbers = {"key": of.BY_KEY, "model": of.BY_MODEL, "hour": of.BY_HOUR, "day": of.BY_HOUR}
    answer = session.client.call(
        session.client.usage.Sum,
        usage_pb2.SumUsageRequest(
            by=[numbers[word] for word in words],
            since=_moment("--since", since, now),
            until=_moment("--until", until, now) if until else 0,
            key=key,
            model=model,
        ),
    )
    rows = _lines(answer.rows, words)
    if output == "table":
        _table(rows, words)
    elif output == "json":
        _json(rows, words)
    else:
        _csv(rows, words)


def _moment(option: str, text: str, now: float) -> int:
    from llmop.domain import times

    seconds = parse_duration(text)
    if seconds is not None:
        return int(now - seconds)
    try:
        return int(times.from_rfc3339(text))
    except ValueError as error:
        raise UsageError(f'{option} "{text}": write 24h, 30d or 2026-12-01T00:00:00Z') from error


def _lines(rows: Any, words: list[str]) -> list[tuple[list[str], list[int]]]:
    """What each line is for, and its numbers; days are added up here."""
    from llmop.domain import times

    sums: dict[tuple[str, ...], list[int]] = {}
    for row in rows:
        at = times.to_rfc3339(row.hour)
        shown = {"key": row.key, "model": row.model, "hour": at, "day": at[:10]}
        line = sums.setdefault(tuple(shown[word] for word in words), [0] * len(_AMOUNTS))
        for index, name in enumerate(_AMOUNTS):
            line[index] += getattr(row, name)
    return [(list(names), numbers) for names, numbers in sums.items()]


def _table(rows: list[tuple[list[str], list[int]]], words: list[str]) -> None:
    from llmop.cli import printing

    if not rows:
        say("Nothing was used.")
        return
    header = [*(word.upper() for word in words), *_HEADERS]
    cells = [[*(name or "<none>" for name in names), *map(str, numbers)] for names, numbers in rows]
    out("\n".join(printing.table([header, *cells])))


def _json(rows: list[tuple[list[str], list[int]]], words: list[str]) -> None:
    from llmop.cli import printing

    values = [
        dict(zip(words, names, strict=True)) | dict(zip(_AMOUNTS, numbers, strict=True))
        for names, numbers in rows
    ]
    out(printing.to_json(values))


def _csv(rows: list[tuple[list[str], list[int]]], words: list[str]) -> None:
    import csv
    import sys

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*words, *_AMOUNTS])
    writer.writerows([*names, *numbers] for names, numbers in rows)
