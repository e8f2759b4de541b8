"""Clients of streams: stream_load.py PORT KEY STREAMS SECONDS.

Keeps STREAMS streams open, each on a connection of its own, and asks again when one has ended, after up to 40 ms by chance: asked again at
once, streams that ended together would go in step for ever, and the burst would be the load's, not the proxy's. Prints one JSON object: events
received per second, times to the first event in ms, streams that ended, failures, and the CPU it took itself. The first second, in
which all streams start together, is not counted. One thread, epoll, no HTTP library.
"""

from __future__ import annotations

import heapq
import json
import random
import resource
import select
import socket
import sys
import time

BODY = (
    b'{"model":"m","messages":[{"role":"user","content":"Say hello, please, and tell me something about yourself."}],'
    b'"max_tokens":100,"temperature":0.2,"stream":true}'
)
WARM_UP = 1.0
LONGEST_PAUSE = 0.04


class _Client:
    __slots__ = ("asked_at", "sock", "tail", "waiting")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.asked_at = 0.0
        self.waiting = True
        self.tail = b""


def main(port: int, key: str, streams: int, seconds: float) -> None:
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    ).encode() + BODY
    epoll = select.epoll()
    clients: dict[int, _Client] = {}
    begin = time.monotonic()
    for number in range(streams):  # spread over half a second, as the events of different streams are
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = clients[sock.fileno()] = _Client(sock)
        epoll.register(sock, select.EPOLLIN)
        client.asked_at = time.monotonic()
        sock.send(request)
        pause = begin + 0.5 * number / streams - time.monotonic()
        if pause > 0:
            time.sleep(pause)
    start = time.monotonic() + WARM_UP
    end = start + seconds
    events = total = ended = failed = 0
    first: list[float] = []
    used = 0.0
    counting = False
    chance = random.Random(1)
    due: list[tuple[float, int]] = []
    while (now := time.monotonic()) < end:
        if not counting and now >= start:
            counting = True
            total += events
            events = ended = 0
            first.clear()
            used = _cpu()
            start = now
        while due and due[0][0] <= now:
            client = clients[heapq.heappop(due)[1]]
            client.waiting = True
            client.asked_at = time.monotonic()
            client.sock.send(request)
        for fd, _ in epoll.poll(min(0.05, max(0.0, due[0][0] - now)) if due else 0.05, 4096):
            client = clients[fd]
            try:
                data = client.sock.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                failed += 1
                epoll.unregister(fd)
                client.sock.close()
                continue
            count = data.count(b"data: ")
            events += count
            if client.waiting and count:
                client.waiting = False
                first.append((time.monotonic() - client.asked_at) * 1000)
            tail = client.tail = (client.tail + data)[-5:] if len(data) < 5 else data[-5:]
            if tail == b"0\r\n\r\n":
                ended += 1
                heapq.heappush(due, (time.monotonic() + chance.random() * LONGEST_PAUSE, fd))
    took = now - start
    total += events
    print(
        json.dumps(
            {
                "events_per_s": events / took,
                "events": total,
                "wall": now - begin,
                "first_ms": sorted(first),
                "ended": ended,
                "failed": failed,
                "cpu_share": (_cpu() - used) / took,
            }
        )
    )


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
