"""An engine that the simulator can be: its routes, who must show the key, and how it says no."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from .app import App
from .http_server import Exchange, Request, Response
from .observer import Observer
from .options import Options

Handler = Callable[[App, Exchange], Awaitable[Response | None]]
Routes = Mapping[tuple[str, str], Handler]


@dataclass(frozen=True, kw_only=True, slots=True)
class Personality:
    """`refused` makes an answer of an exception that a handler raised, None for one that is not of this engine."""

    routes: Routes
    observer: Callable[[Options], Observer]
    is_guarded: Callable[[Request], bool]
    same_key: Callable[[bytes, bytes], bool]
    unauthorized: Response
    not_found: Response
    not_allowed: Callable[[list[str]], Response]
    refused: Callable[[Exception], Response | None]
    # Whether the port stays open while requests are finished, as uvicorn's does in vLLM.
    accepts_while_draining: bool = False
