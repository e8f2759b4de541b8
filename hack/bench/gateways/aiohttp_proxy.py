"""A reverse proxy of a few lines, with aiohttp on both sides: aiohttp_proxy.py PORT ENGINE_PORT."""

from __future__ import annotations

import sys

import aiohttp
import uvloop
from aiohttp import web

PORT, ENGINE = int(sys.argv[1]), int(sys.argv[2])


async def _session(app: web.Application):  # type: ignore[no-untyped-def]  # as aiohttp wants it
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=None)
    ) as session:
        app["session"] = session
        yield


async def _proxy(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    url = f"http://127.0.0.1:{ENGINE}{request.path_qs}"
    headers = {"content-type": request.headers.get("content-type", "application/json")}
    async with request.app["session"].post(url, data=body, headers=headers) as answer:
        response = web.StreamResponse(
            status=answer.status, headers={"content-type": answer.headers["content-type"]}
        )
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
    return response


def main() -> None:
    app = web.Application(client_max_size=1 << 25)
    app.cleanup_ctx.append(_session)
    app.router.add_post("/{path:.*}", _proxy)
    web.run_app(
        app,
        host="127.0.0.1",
        port=PORT,
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
        backlog=8192,
    )


if __name__ == "__main__":
    main()
