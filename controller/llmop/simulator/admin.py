"""Faults on demand while the simulator runs: /simulator/fault, only with `--admin`."""

from __future__ import annotations

from .app import App, answer_json, read_body
from .errors import BadBody
from .faults import parse_fault
from .http_server import Exchange, Response
from .process import crash


async def add_fault(app: App, exchange: Exchange) -> Response | None:
    """POST {"fault": SPEC}: set a fault. Its count of requests starts now; loading is over, so no fault of it."""
    spec = read_body(exchange).required_text("fault")
    try:
        fault = parse_fault(spec)
    except ValueError as error:
        raise BadBody(422, str(error)) from error
    if fault.place == "load" or fault.action == "slow-load":
        raise BadBody(422, f"fault {spec!r}: the model is loaded already; give it with --fault at the start")
    app.faults.add(fault)
    if fault.place == "ready" and fault.action == "crash":
        crash(app.faults, "ready")
    if fault.place == "ready":
        app.inference.engine.healthy = False
    return answer_json({"faults": app.faults.active()})


async def clear_faults(app: App, exchange: Exchange) -> Response | None:
    """DELETE: remove all faults and go on as if there had been none."""
    app.faults.clear()
    app.inference.engine.thaw()
    return answer_json({"faults": []})
