"""Figures and runs for tests."""

from array import array
from typing import Any

from llmop.cli.bench import measures, results
from llmop.cli.bench.loads import Cell, Lengths, Mode
from llmop.cli.bench.measures import Client, Figures, Sample

LENGTHS = Lengths(prompt=128, output=3)
CLIENT = Client(cpu_share=0.2, lag_s=0.001, connections=1, held_back=0, most_open=1)


def answered(due_at: float, ttft: float, gap: float, **more: Any) -> Sample:
    """Three pieces."""
    first = due_at + ttft
    told: dict[str, Any] = {"sent_at": due_at, "pieces": 3, "prompt_tokens": 130, "output_tokens": 3, **more}
    return Sample(due_at=due_at, first_at=first, last_at=first + 2 * gap, ended_at=first + 2 * gap, **told)


def figures(
    samples: list[Sample], *, cell: Cell | None = None, seconds: float = 10.0, **more: Any
) -> Figures:
    cell = cell or Cell(model="m", mode=Mode.CLOSED, level=1, lengths=LENGTHS)
    good = [each for each in samples if not each.error]
    gaps = array("f", [(each.last_at - each.first_at) / 2 for each in good for _ in range(2)])
    return measures.figures(
        cell,
        samples,
        gaps,
        seconds=seconds,
        **{"pieces": 3 * len(good), "answers": len(good), "client": CLIENT, **more},
    )


def level(number: float, tokens_per_second: float, *, model: str = "m", mode: Mode = Mode.CLOSED) -> Figures:
    """A cell whose rate is given, with latencies that grow with the level."""
    cell = Cell(
        model=model,
        mode=mode,
        level=number,
        lengths=None if mode is Mode.TRACE else LENGTHS,
        trace="code" if mode is Mode.TRACE else "",
    )
    samples = [answered(each, 0.01 * number, 0.02) for each in range(120)]
    return figures(samples, cell=cell, pieces=int(tokens_per_second * 10))


def run(*cells: Figures, label: str = "") -> results.Run:
    return results.Run(
        label=label,
        conditions=results.Conditions(
            at="2026-11-28T09:00:00Z",
            target="http://127.0.0.1:8080",
            api="chat",
            warm_up_s=2.0,
            seed=7,
            version="VERSION",
            python="3.11.7",
            kernel="6.1",
            cpus=2,
            load_average=0.5,
        ),
        figures=cells,
    )
