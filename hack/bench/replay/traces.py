"""Days of requests made of an hour of the Azure LLM inference trace 2023.

Azure Public Dataset, CC-BY 4.0, https://github.com/Azure/AzurePublicDataset (Patel et al., Splitwise, ISCA 2024): arrival time, prompt
tokens, generated tokens. The excerpt in this folder holds the first ten minutes of its conversations, times as seconds from the first
request; the whole hour is read from the folder that LLMOP_TRACES names.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import gzip
import math
import os
import random
from pathlib import Path

EXCERPT = Path(__file__).with_name("azure-conversations-10min.csv.gz")
WHOLE = "AzureLLMInferenceTrace_conv.csv.gz"
DAY_S = 86_400
QUIET, BUSY = 0.15, 1.5  # the day curve: this many times the trace's own rate


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    at: float
    prompt: int
    generated: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    name: str
    length_s: float
    requests: tuple[Request, ...]


def load() -> Trace:
    folder = os.environ.get("LLMOP_TRACES")
    path = Path(folder) / WHOLE if folder else EXCERPT
    requests = []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            at = row["TIMESTAMP"]
            seconds = float(at) if ":" not in at else _epoch(at)
            requests.append(
                Request(at=seconds, prompt=int(row["ContextTokens"]), generated=int(row["GeneratedTokens"]))
            )
    begin = requests[0].at
    shifted = tuple(dataclasses.replace(each, at=each.at - begin) for each in requests)
    return Trace(name=path.name, length_s=math.ceil(shifted[-1].at), requests=shifted)


def _epoch(text: str) -> float:
    day, _, fraction = text.partition(".")
    parsed = datetime.datetime.fromisoformat(day).replace(tzinfo=datetime.UTC)
    return parsed.timestamp() + float(f"0.{fraction or 0}")


def day(trace: Trace, source: random.Random) -> list[Request]:
    """24 h: the trace over and over from a random place, thinned or thickened by a day curve with a random peak, and with one rush of
    ten minutes to half an hour at up to twice the curve.
    """
    peak_s = source.uniform(0, DAY_S)
    rush_s, rush_long_s, rush = source.uniform(0, DAY_S), source.uniform(600, 1800), source.uniform(1.3, 2.0)
    offset = source.uniform(0, trace.length_s)
    found = []
    begin = -offset
    while begin < DAY_S:
        for each in trace.requests:
            at = begin + each.at
            if not 0 <= at < DAY_S:
                continue
            wave = (1 + math.cos((at - peak_s) / DAY_S * 2 * math.pi)) / 2
            rate = QUIET + (BUSY - QUIET) * wave**2
            if rush_s <= at < rush_s + rush_long_s:
                rate *= rush
            copies = int(rate) + (source.random() < rate % 1)
            for number in range(copies):
                late = source.uniform(0, 30) if number else 0.0
                if at + late < DAY_S:
                    found.append(dataclasses.replace(each, at=at + late))
        begin += trace.length_s
    found.sort(key=lambda each: each.at)
    return found
