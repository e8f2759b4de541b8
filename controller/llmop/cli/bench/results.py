"""Results of a run as JSON, which comes back as it was, and as CSV, one row per measurement."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmop.cli.bench.loads import Cell, Lengths, Mode
from llmop.cli.bench.measures import Client, Failures, Figures, Spread
from llmop.cli.bench.startup import Startup
from llmop.cli.errors import ConfigError
from llmop.files import whole

FORMAT = "llmctl-bench/1"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """Under which a run was made. `load_average` is that of the client's machine before it. The figures are those of a server
    `time_scale` times as fast as the one that was asked.
    """

    at: str
    target: str
    api: str
    warm_up_s: float
    seed: int
    version: str
    python: str
    kernel: str
    cpus: int
    load_average: float
    time_scale: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """`label` tells runs apart that are shown together."""

    label: str
    conditions: Conditions
    figures: tuple[Figures, ...] = ()
    startups: tuple[Startup, ...] = ()


def to_json(run: Run) -> str:
    document = {
        "format": FORMAT,
        "label": run.label,
        "conditions": _camel(dataclasses.asdict(run.conditions)),
        "figures": [_figures_json(each) for each in run.figures],
        "startups": [_camel(dataclasses.asdict(each)) for each in run.startups],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def read(path: Path) -> Run:
    """Raises ConfigError for what is no result of ours."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ConfigError(f'{path}: is no result of llmctl bench; such a file has "format": "{FORMAT}"')
        return Run(
            label=str(data["label"]),
            conditions=Conditions(**_snake(data["conditions"])),
            figures=tuple(_figures_of(each) for each in data["figures"]),
            startups=tuple(Startup(**_snake(each)) for each in data["startups"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: is no whole result of llmctl bench: {error!r}") from error


_SPREAD = tuple(field.name for field in dataclasses.fields(Spread) if field.name != "curve")


def to_csv(runs: Sequence[Run]) -> str:
    """Seconds, to the microsecond, and rates per second. What a model or a server has called itself is kept from being taken for a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = ["run", "model", "mode", "level", "promptAsked", "outputAsked", "trace", "windowSeconds"]
    columns += ["requests", "answered", "failed", "tokensPerSecond", "requestsPerSecond"]
    columns += ["promptTokens", "outputTokens", "tokensCountedBy"]
    columns += [f"{name}_{each}" for name in ("ttft", "itl", "e2e") for each in _SPREAD]
    columns += ["clientCpuShare", "clientLagSeconds", "interrupted", "errors", "warnings", "timeScale"]
    writer.writerow(columns)
    for run in runs:
        for each in run.figures:
            cell, lengths = each.cell, each.cell.lengths
            row: list[Any] = [_plain(run.label), _plain(cell.model), str(cell.mode), cell.level]
            row += [lengths.prompt, lengths.output] if lengths else ["", ""]
            row += [_plain(cell.trace), each.seconds, each.requests, each.answered, each.failed]
            row += [each.tokens_per_second, each.requests_per_second]
            row += [each.prompt_tokens, each.output_tokens, each.tokens_counted_by]
            row += [
                getattr(spread, name) if spread.count or name == "count" else ""
                for spread in (each.ttft, each.itl, each.e2e)
                for name in _SPREAD
            ]
            row += [each.client.cpu_share, each.client.lag_s, int(each.is_interrupted)]
            row += ["; ".join(f"{name}: {found.count}" for name, found in each.errors.items())]
            row += ["; ".join(each.warnings), run.conditions.time_scale]
            writer.writerow([round(value, 6) if isinstance(value, float) else value for value in row])
    return out.getvalue()


def write(path: Path, text: str) -> None:
    """Whole or not at all: a run that is killed leaves the results of what it had measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.write(path, text.encode(), 0o644)


def _figures_json(figures: Figures) -> dict[str, Any]:
    data: dict[str, Any] = _camel(dataclasses.asdict(figures))
    data["cell"]["mode"] = str(figures.cell.mode)
    data["errors"] = {name: dataclasses.asdict(each) for name, each in figures.errors.items()}
    return data


def _figures_of(data: Mapping[str, Any]) -> Figures:
    values = _snake({**data, "errors": {}})
    cell = dict(values["cell"])
    lengths = cell["lengths"]
    cell |= {"mode": Mode(cell["mode"]), "lengths": Lengths(**lengths) if lengths else None}
    for name in ("ttft", "itl", "e2e"):
        values[name] = Spread(**{**values[name], "curve": tuple(values[name]["curve"])})
    return Figures(
        **{
            **values,
            "cell": Cell(**cell),
            "client": Client(**values["client"]),
            "errors": {name: Failures(**each) for name, each in data["errors"].items()},
            "warnings": tuple(values["warnings"]),
        }
    )


def _plain(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _camel(value: Any) -> Any:
    if isinstance(value, dict):
        return {_camel_word(key): _camel(each) for key, each in value.items()}
    return [_camel(each) for each in value] if isinstance(value, list | tuple) else value


def _camel_word(word: str) -> str:
    first, *rest = word.split("_")
    return first + "".join(each.capitalize() for each in rest)


def _snake(value: Any) -> Any:
    if isinstance(value, dict):
        return {_snake_word(key): _snake(each) for key, each in value.items()}
    return [_snake(each) for each in value] if isinstance(value, list) else value


def _snake_word(word: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in word)


def all_figures(runs: Iterable[Run]) -> list[tuple[str, Figures]]:
    """Every measurement with the label of its run."""
    return [(run.label, each) for run in runs for each in run.figures]
