"""An engine that streams: stream_engine.py PORT CHUNKS PER_SECOND [FIRST].

Every POST gets CHUNKS events in the form of vLLM's chat chunks, the first FIRST of them (1) at once and the others at PER_SECOND,
then `[DONE]`; with `include_usage` in the request a usage event before it. PER_SECOND 0 is as fast as the socket takes them. With CHUNKS 0
a stream gets its first event and stays open. One thread, epoll, no HTTP library: a chunk costs a send and little more.
"""

from __future__ import annotations

import collections
import contextlib
import select
import socket
import sys
import time

TICKS = 1000  # slots of the clock per second

_TEXT = (
    b'{"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}'
)
_USAGE = (
    b'{"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[],'
    b'"usage":{"prompt_tokens":20,"total_tokens":120,"completion_tokens":100}}'
)
_HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_OTHER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


def _chunk(data: bytes) -> bytes:
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


CHUNK = _chunk(_TEXT)
END = _chunk(b"[DONE]") + b"0\r\n\r\n"
USAGE_END = _chunk(_USAGE) + END


class _Stream:
    __slots__ = ("due", "end", "left", "pending", "request", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.request = b""
        self.pending = b""
        self.left = 0
        self.due = 0
        self.end = END


class Engine:
    def __init__(self, port: int, chunks: int, per_second: int, first: int) -> None:
        self.chunks = chunks
        self.every = TICKS // per_second if per_second else 0
        self.first = first
        self.epoll = select.epoll()
        self.streams: dict[int, _Stream] = {}
        self.slots: collections.defaultdict[int, list[_Stream]] = collections.defaultdict(list)
        self.listener = socket.create_server(("127.0.0.1", port), backlog=8192, reuse_port=False)
        self.listener.setblocking(False)
        self.epoll.register(self.listener, select.EPOLLIN)

    def run(self) -> None:
        listening = self.listener.fileno()
        now = tick = int(time.monotonic() * TICKS)
        while True:
            busy = bool(self.slots)
            for fd, event in self.epoll.poll((0 if self.every == 0 else 0.5 / TICKS) if busy else 0.2, 4096):
                if fd == listening:
                    self._accept()
                elif event & select.EPOLLOUT:
                    self._writable(fd)
                else:
                    self._readable(fd, now)
            now = int(time.monotonic() * TICKS)
            while tick <= now:
                for stream in self.slots.pop(tick, ()):
                    self._step(stream, tick)
                tick += 1

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self.listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.streams[sock.fileno()] = _Stream(sock)
                self.epoll.register(sock, select.EPOLLIN)

    def _readable(self, fd: int, now: int) -> None:
        stream = self.streams[fd]
        try:
            data = stream.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(stream)
            return
        stream.request += data
        head, blank, body = stream.request.partition(b"\r\n\r\n")
        if not blank:
            return
        if not head.startswith(b"POST"):
            stream.request = b""
            stream.sock.send(_OTHER)
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
        if len(body) < length:
            return
        stream.request = b""
        stream.end = USAGE_END if b"include_usage" in body else END
        stream.left = self.chunks - self.first
        self._send(stream, _HEAD + CHUNK * self.first)
        if self.chunks:
            stream.due = now + (self.every or 1)
            self.slots[max(stream.due, now + 1)].append(stream)

    def _step(self, stream: _Stream, tick: int) -> None:
        if stream.sock.fileno() < 0:
            return
        if stream.pending:  # the reader is slow: its turn comes when it has read
            self.slots[tick + (self.every or 1)].append(stream)
            return
        if self.every == 0:
            count = min(stream.left, 16)
            stream.left -= count
            self._send(stream, CHUNK * count + (b"" if stream.left else stream.end))
        else:
            stream.left -= 1
            self._send(stream, CHUNK if stream.left else CHUNK + stream.end)
        if stream.left:
            self.slots[tick + (self.every or 1)].append(stream)

    def _send(self, stream: _Stream, data: bytes) -> None:
        try:
            sent = stream.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(stream)
            return
        if sent < len(data):
            stream.pending = data[sent:]
            self.epoll.modify(stream.sock, select.EPOLLIN | select.EPOLLOUT)

    def _writable(self, fd: int) -> None:
        stream = self.streams[fd]
        data, stream.pending = stream.pending, b""
        self.epoll.modify(stream.sock, select.EPOLLIN)
        self._send(stream, data)

    def _close(self, stream: _Stream) -> None:
        if stream.sock.fileno() >= 0:
            del self.streams[stream.sock.fileno()]
            stream.sock.close()


if __name__ == "__main__":
    port, chunks, per_second, *rest = map(int, sys.argv[1:])
    Engine(port, chunks, per_second, rest[0] if rest else 1).run()
