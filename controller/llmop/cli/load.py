"""A gateway's counters (docs/reference/gateway.md, "Metrics") as a table of loads. Nothing is estimated: a cell without data is <none>."""

import re
from collections.abc import Mapping
from typing import Any

COLUMNS = ("MODEL", "IN-FLIGHT", "REQ/S", "FAILED/S", "FIRST-BYTE", "REQUESTS", "FAILED")
REPLICA_COLUMNS = ("DEPLOYMENT", "REPLICA", "IN-FLIGHT")
_UNKNOWN = "unknown"
_NONE = "<none>"

# A sample of Prometheus' text format: name, labels, value.
_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)(?: -?\d+)?")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')

Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> Samples:
    """(name, labels) to value; lines that are none are left out."""
    found = {}
    for line in text.splitlines():
        sample = None if line.startswith("#") else _SAMPLE.fullmatch(line.strip())
        if sample is None:
            continue
        labels = tuple(sorted((key, _plain(value)) for key, value in _LABEL.findall(sample["labels"] or "")))
        try:
            found[(sample["name"], labels)] = float(sample["value"])
        except ValueError:
            continue
    return found


def table(before: Samples, after: Samples, seconds: float) -> list[list[str]]:
    """A row per model, in the order of their names; rates over `seconds` between the two."""
    models = sorted(
        {dict(labels)["model"] for name, labels in after if name == "llmop_gateway_in_flight"} - {_UNKNOWN}
    )
    return [_row(model, before, after, seconds) for model in models]


def replicas(samples: Samples) -> list[list[str]]:
    """A row per replica that the gateway knows of, in the order of deployments and names."""
    found = (
        (dict(labels), value)
        for (name, labels), value in samples.items()
        if name == "llmop_gateway_replica_in_flight"
    )
    return sorted([labels["deployment"], labels["replica"], f"{value:.0f}"] for labels, value in found)


def _row(model: str, before: Samples, after: Samples, seconds: float) -> list[str]:
    requests = _sum(after, "llmop_gateway_requests_total", model=model)
    failed = _failed(after, model)
    new = requests - _sum(before, "llmop_gateway_requests_total", model=model)
    new_failed = failed - _failed(before, model)
    # A gateway that was started anew counts from zero: then its counters are what happened since.
    if new < 0 or new_failed < 0:
        new, new_failed = requests, failed
    return [
        model,
        f"{_sum(after, 'llmop_gateway_in_flight', model=model):.0f}",
        f"{new / seconds:.1f}",
        f"{new_failed / seconds:.1f}",
        _first_byte(model, before, after),
        f"{requests:.0f}",
        f"{failed:.0f}",
    ]


def _failed(samples: Samples, model: str) -> float:
    return _sum(samples, "llmop_gateway_requests_total", model=model, code="5xx")


def _first_byte(model: str, before: Samples, after: Samples) -> str:
    """The mean over the time between, <none> when no answer began in it."""
    name = "llmop_gateway_time_to_first_byte_seconds"
    count = _sum(after, f"{name}_count", model=model) - _sum(before, f"{name}_count", model=model)
    total = _sum(after, f"{name}_sum", model=model) - _sum(before, f"{name}_sum", model=model)
    if count <= 0 or total < 0:
        return _NONE
    return f"{1000 * total / count:.0f}ms"


def _sum(samples: Samples, wanted: str, **labels: Any) -> float:
    return sum(
        value
        for (name, found), value in samples.items()
        if name == wanted and labels.items() <= dict(found).items()
    )


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], text)
