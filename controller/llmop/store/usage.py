"""Usage in SQL: batches are counted once, sums are made by the database."""

from collections.abc import Sequence

import sqlalchemy as sa

from llmop.domain.usage import Amount, UsageBy, UsageRow
from llmop.store import tables

_rows = tables.usage.c
_NUMBERS = ("requests", "prompt_tokens", "completion_tokens", "estimated", "limited")
_ADD = (
    tables.usage.update()
    .where(
        _rows.hour == sa.bindparam("of_hour"),
        _rows.key == sa.bindparam("of_key"),
        _rows.model == sa.bindparam("of_model"),
    )
    .values({name: _rows[name] + sa.bindparam(f"more_{name}") for name in _NUMBERS})
)


def add(connection: sa.Connection, spool: str, number: int, rows: Sequence[UsageRow]) -> bool:
    connection.execute(tables.counter.update().values(epoch=tables.counter.c.epoch))  # wait for our turn
    spools = tables.usage_spools
    last = connection.execute(sa.select(spools.c.number).where(spools.c.spool == spool)).scalar()
    if last is not None and last >= number:
        return False
    if last is None:
        connection.execute(spools.insert().values(spool=spool, number=number))
    else:
        connection.execute(spools.update().where(spools.c.spool == spool).values(number=number))
    for row in rows:
        place = {"of_hour": row.hour, "of_key": row.key, "of_model": row.model}
        numbers = {name: getattr(row.amount, name) for name in _NUMBERS}
        added = connection.execute(_ADD, place | {f"more_{name}": value for name, value in numbers.items()})
        if not added.rowcount:
            connection.execute(
                tables.usage.insert(), {"hour": row.hour, "key": row.key, "model": row.model, **numbers}
            )
    connection.commit()
    return True


def sums(
    connection: sa.Connection, by: Sequence[UsageBy], since: float, until: float, key: str, model: str
) -> tuple[UsageRow, ...]:
    wanted = [name for name in UsageBy if name in by]
    columns = [_rows[name] for name in wanted]
    asked = sa.select(*columns, *(sa.func.sum(_rows[name]).label(name) for name in _NUMBERS))
    asked = asked.where(_rows.hour >= since, _rows.hour < until)
    if key:
        asked = asked.where(_rows.key == key)
    if model:
        asked = asked.where(_rows.model == model)
    found = connection.execute(asked.group_by(*columns).order_by(*columns))
    return tuple(
        UsageRow(
            **{name.value: row._mapping[name.value] for name in wanted},
            amount=Amount(**{name: int(row._mapping[name]) for name in _NUMBERS}),
        )
        for row in found
        if row.requests is not None  # the sum of nothing at all
    )


def drop(connection: sa.Connection, before: float) -> None:
    connection.execute(tables.usage.delete().where(_rows.hour < before))
    connection.commit()
