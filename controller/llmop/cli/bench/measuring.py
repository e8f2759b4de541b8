"""`llmctl bench run`: from what was asked for to results on the terminal and in a folder."""

import asyncio
import dataclasses
import os
import platform
import signal
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

import llmop
from llmop.cli import printing, progress, talking
from llmop.cli.bench import asked, drive, loads, measures, page, picture, refused, results, tables, traces
from llmop.cli.bench.dialects import DIALECTS
from llmop.cli.bench.wire import Pool
from llmop.cli.errors import CliError, ExitCode
from llmop.cli.session import Session, out, say
from llmop.domain import times


def measure(session: Session, given: asked.Given) -> None:
    """Raises CliError for what cannot be measured, KeyboardInterrupt after Ctrl-C, when what was measured is printed."""
    wanted = asked.understand(given, os.environ)
    if given.url is not None:
        found = talking.gateway(session, given.url, given.key_file, given.timeout, flag="--url")
    else:
        found = talking.gateway(session, given.gateway_url, given.key_file, given.timeout)
    models = _models(found, given)
    seed = given.seed if given.seed is not None else _new_seed(session)
    this = results.Run(
        label=given.label,
        conditions=conditions(
            session,
            found,
            api=given.api,
            warm_up_s=wanted.warm_up_s,
            seed=seed,
            time_scale=given.time_scale or 1.0,
        ),
    )
    settings = drive.Settings(
        dialect=(dialect := DIALECTS[given.api]),
        path_of=(lambda name: dialect.path)
        if given.url is not None
        else (lambda name: talking.under(name, dialect.path)),
        warm_up_s=wanted.warm_up_s,
        seconds=wanted.seconds,
        requests=given.requests or 0,
        most_open=given.most_open,
        ignore_eos=given.ignore_eos,
        seed=seed,
    )
    folder = Path(given.folder) if given.folder else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)  # before the load, not after it
    done, is_interrupted = uvloop.run(_cells(found, settings, wanted, models, this, folder))
    print_runs([done])
    if folder is not None:
        results.write(folder / "bench.json", results.to_json(done))
        write_reports(folder, [done])
    if is_interrupted:
        raise KeyboardInterrupt
    if not any(each.answered for each in done.figures):
        raise CliError("error: no request was answered", ExitCode.UNEXPECTED)


def conditions(
    session: Session,
    found: talking.Gateway,
    *,
    api: str,
    warm_up_s: float,
    seed: int,
    time_scale: float = 1.0,
) -> results.Conditions:
    """Those of now, on this machine."""
    return results.Conditions(
        at=times.to_rfc3339(session.clock.now()),
        target=_shown_url(found.url),
        api=api,
        warm_up_s=warm_up_s,
        seed=seed,
        version=llmop.__version__,
        python=platform.python_version(),
        kernel=platform.release(),
        cpus=len(os.sched_getaffinity(0)),
        load_average=round(os.getloadavg()[0], 2),
        time_scale=time_scale,
    )


async def _cells(
    found: talking.Gateway,
    settings: drive.Settings,
    wanted: asked.Wanted,
    models: Sequence[str],
    this: results.Run,
    folder: Path | None,
) -> tuple[results.Run, bool]:
    """What came of all cells, or of those until Ctrl-C, and whether that was. The results in the folder grow with each cell."""
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupted.set)
    pool = Pool(found.url, found.key, found.timeout_s)
    names = {speed: trace.name for speed, trace in wanted.traces.items()}
    cells = loads.cells(models, wanted.mode, wanted.levels, wanted.lengths, next(iter(names.values()), ""))
    try:
        for model in models:
            await _probe(pool, settings, model, interrupted)
        with progress.shown() as shown:
            for number, cell in enumerate(cells, start=1):
                if interrupted.is_set():
                    break
                words = f"{number} of {len(cells)}"
                label = f"{cell.model} {cell.words}"
                shown.show({label: words})

                def show(now: drive.Progress, words: str = words, label: str = label) -> None:
                    if shown.is_live:
                        shown.show({label: f"{words}; {_sentence(now)}"})

                trace = wanted.traces.get(cell.level) if cell.mode is loads.Mode.TRACE else None
                figures = await drive.run(
                    pool,
                    settings,
                    cell,
                    trace=trace.arrivals if trace else (),
                    notes=_notes(trace),
                    interrupted=interrupted,
                    show=show,
                )
                if figures is not None:
                    figures = measures.unscaled(figures, this.conditions.time_scale)
                    this = dataclasses.replace(this, figures=(*this.figures, figures))
                    if folder is not None:
                        results.write(folder / "bench.json", results.to_json(this))
        return this, interrupted.is_set()
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        await pool.close()


def _notes(trace: "traces.Trace | None") -> list[str]:
    if trace is None or not trace.shortened:
        return []
    return [f"{trace.shortened} of {len(trace.arrivals)} requests were shortened to the context length"]


async def _probe(pool: Pool, settings: drive.Settings, model: str, interrupted: asyncio.Event) -> None:
    """Raises CliError for a model that does not answer at all."""
    work = asyncio.ensure_future(drive.probe(pool, settings, model))
    stop = asyncio.ensure_future(interrupted.wait())
    await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not work.done():
        work.cancel()
        await asyncio.wait({work})
        return
    sample = work.result()
    if not sample.error:
        return
    raise refused.error(model, _shown_url(pool.url), settings.path_of(model), sample)


def _sentence(now: drive.Progress) -> str:
    left = f", {now.left_s:.0f}s left" if now.left_s is not None else ""
    return f"{now.done} answered, {now.failed} failed, {now.open} open{left}"


def _models(found: talking.Gateway, given: asked.Given) -> list[str]:
    """Those that were named, once each, else the only one."""
    if given.models:
        return list(dict.fromkeys(given.models))
    return [talking.model(found, None)]


def _new_seed(session: Session) -> int:
    import zlib

    return zlib.crc32(session.clock.uid().encode())


def _shown_url(url: str) -> str:
    """Without a password that stands in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.netloc else url


def print_runs(runs: Sequence[results.Run]) -> None:
    """Tables to stdout, what has to be known about them to stderr."""
    if any(run.figures for run in runs):
        out("\n".join(printing.table(tables.of_figures(runs))))
        say(f"{tables.LEGEND}, in milliseconds")
    startups = [each for run in runs for each in run.startups]
    if startups:
        out("\n".join(printing.table(tables.of_startups(startups))))
        say("median seconds after the apply was sent")
        out("\n".join(printing.table(tables.of_steps(startups))))
        say("median seconds from the step before")
    for remark in tables.remarks(runs):
        say(remark)


def write_reports(folder: Path, runs: Sequence[results.Run]) -> None:
    """bench.csv and bench.html of these runs, and bench.svg where they have closed loops."""
    results.write(folder / "bench.csv", results.to_csv(runs))
    results.write(folder / "bench.html", page.html(runs))
    if shown := picture.svg(runs):
        results.write(folder / "bench.svg", shown)
    else:
        (folder / "bench.svg").unlink(missing_ok=True)  # of another run
    say(f"wrote {folder / 'bench.html'}")
