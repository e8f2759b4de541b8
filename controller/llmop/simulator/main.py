"""The life of the process: read options, load, open the port, serve, drain, end.

Exit status: 0 ended as asked; 1 could not start, crashed (see `exit-code`), or requests were cut at the end;
2 bad options.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from .app import App
from .engine import Engine
from .exclusive import CannotStart, exclusive
from .faults import Faults
from .generate import Inference
from .http_server import HttpServer
from .options import Options, parse_options
from .process import crash, say
from .routes import PERSONALITIES, Routes


def main(arguments: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT; returns the exit status."""
    options = parse_options(arguments, os.environ)
    try:
        with exclusive(options):
            return asyncio.run(_run(options))
    except CannotStart as error:
        print(f"simulator: error: {error}", file=sys.stderr, flush=True)
        return 1


class _Signals:
    """The first SIGTERM or SIGINT asks for an end, the second for an end at once."""

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.now = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._received)

    def _received(self) -> None:
        (self.now if self.end.is_set() else self.end).set()


async def _run(options: Options) -> int:
    signals = _Signals()
    faults = Faults(options.faults)
    if not await _load(options, faults, signals):
        say("ended before the model was loaded")
        return 0
    personality = PERSONALITIES[options.personality]
    observer = personality.observer(options)
    engine = Engine(options, observer, faults)
    app = App(options, Inference(options, engine, observer), observer, faults)
    server = HttpServer(Routes(app), most_body=options.payload_limit)
    try:
        port = await server.start(options.hostname, options.port)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise CannotStart(
            f"--port {options.port}: cannot listen on {options.hostname}: {reason}; choose another port"
        ) from error
    host = f"[{options.hostname}]" if ":" in options.hostname else options.hostname
    say(f"listening on http://{host}:{port}")
    if faults.at("crash", "ready"):
        crash(faults, "ready")
    engine.healthy = not faults.at("unhealthy", "ready")
    await signals.end.wait()
    return await _drain(server, engine, options, signals)


async def _load(options: Options, faults: Faults, signals: _Signals) -> bool:
    """Load the model; False if a signal came first."""
    say(f"loading model {options.model_id}")
    if faults.at("crash", "load"):
        crash(faults, "load")
    if faults.at("hang", "load"):
        await signals.end.wait()
        return False
    seconds = options.load_seconds + faults.number("slow-load", 0)
    if seconds > 0:
        try:
            await asyncio.wait_for(signals.end.wait(), seconds)
        except TimeoutError:
            pass
    return not signals.end.is_set()


async def _drain(server: HttpServer, engine: Engine, options: Options, signals: _Signals) -> int:
    say(f"draining, for at most {options.graceful_timeout:g} s")

    async def all_answered() -> None:
        if PERSONALITIES[options.personality].accepts_while_draining:
            await engine.close()
        await server.drain()

    drained = asyncio.ensure_future(all_answered())
    now = asyncio.ensure_future(signals.now.wait())
    await asyncio.wait({drained, now}, timeout=options.graceful_timeout, return_when=asyncio.FIRST_COMPLETED)
    now.cancel()
    if drained.done():
        say("drained")
        return 0
    cut = server.cut()
    say(f"requests cut: {cut}")
    return 1 if cut else 0
