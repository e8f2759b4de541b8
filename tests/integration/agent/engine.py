"""An engine for the agent's tests: /health, /generate with a key, /stream, and faults on demand. Started as a script."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

parser = argparse.ArgumentParser()
parser.add_argument("--host", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--key-file", type=Path, required=True)
parser.add_argument(
    "--faults", type=Path, required=True, help="directory: a file named after a fault switches it on"
)
parser.add_argument("--word", help="anything: it is not used")
parser.add_argument("--child", action="store_true", help="have a child process that ignores SIGTERM")
options = parser.parse_args()
key = options.key_file.read_text().strip()


def fault(name: str) -> bool:
    return (options.faults / name).exists()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/health":
            while fault("hang"):
                time.sleep(0.05)
            while fault("busy"):
                pass
            self.answer(503 if fault("loading") else 200, b"")
        elif self.path == "/metrics":
            self.metrics()
        elif self.path == "/stream":
            self.stream()
        elif self.path == "/crash":
            os._exit(3)

    def metrics(self) -> None:
        """The file `metrics` of the directory of faults, if there is one; or, by their files, what no engine should do."""
        if self.headers["Authorization"] != f"Bearer {key}" or fault("no-metrics"):
            self.answer(404, b"")
            return
        while fault("metrics-hang"):
            time.sleep(0.02)
        if fault("metrics-trickle"):
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while fault("metrics-trickle"):
                self.wfile.write(b"x: y\r\n")
                time.sleep(0.02)
        if fault("metrics-endless"):
            self.send_response(200)
            self.end_headers()
            while fault("metrics-endless"):
                self.wfile.write(b"q 1\n" * 10_000)
        if fault("metrics-liar"):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9" + b"9" * 30 + b"\r\n\r\nq 1\n")
            self.close_connection = True
            return
        self.answer(200, (options.faults / "metrics").read_bytes() if fault("metrics") else b"")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        right = (
            self.headers["Authorization"] == f"Bearer {key}"
            and self.path == "/generate"
            and not fault("refuse")
        )
        self.answer(200 if right else 422, b'{"generated_text": "x"}')

    def answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        while not fault("end-stream"):
            self.wfile.write(b"data: x\n\n")
            time.sleep(0.02)
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


if fault("tell"):
    (options.faults / "told.json").write_text(json.dumps([sys.argv, dict(os.environ), str(Path.cwd())]))
while fault("wait"):
    time.sleep(0.02)
if fault("crash"):
    print("the engine fails with the key", key, flush=True)
    sys.exit(3)
if options.child:
    ignore = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", ignore, str(options.faults)])
ThreadingHTTPServer((options.host, options.port), Handler).serve_forever()
