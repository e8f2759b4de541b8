"""llama.cpp's own HTTP server in this process, from the wheel `xllamacpp`: the engine of the built-in runtime `llamacpp`.

It serves llama.cpp's routes (`/health`, `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`, `/metrics`, ...), demands the
key of `--api-key-file` as a bearer token, and ends with status 0 on SIGTERM or SIGINT. Log lines, without prompts, go to stderr.
"""

from __future__ import annotations

import argparse
import gc
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

GGUF_MAGIC = b"GGUF"  # first four bytes of every file of llama.cpp's model format


class StartError(Exception):
    """The server cannot start; the text is the one line that people see."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """`context` is the number of tokens that all `parallel` requests share; 0 leaves it to the model. `threads` 0 = one for each core."""

    model: Path
    host: str
    port: int
    alias: str
    api_key: str
    parallel: int
    context: int
    embedding: bool
    threads: int


def parse(argv: Sequence[str]) -> Options:
    """Read the command line and the key file. Raises StartError for a key file that cannot be used."""
    parser = argparse.ArgumentParser(prog="llamacpp_server", description="Serve a GGUF model with llama.cpp.")
    parser.add_argument("--model", type=Path, required=True, metavar="F.gguf")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--alias", required=True, help="the model name that clients use")
    parser.add_argument("--api-key-file", type=Path, required=True, help="file with one line, the key")
    parser.add_argument(
        "--parallel", type=int, default=1, metavar="N", help="requests served at the same time"
    )
    parser.add_argument(
        "--ctx",
        type=int,
        default=0,
        metavar="N",
        help="context in tokens, divided among the parallel requests; 0: the model's own",
    )
    parser.add_argument("--embedding", action="store_true", help="serve embeddings instead of text")
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="threads that compute; 0: one for each core of the machine, however many of them are ours",
    )
    given = parser.parse_args(argv)
    if given.parallel < 1:
        parser.error(f"argument --parallel: {given.parallel} is less than 1")
    if given.ctx < 0:
        parser.error(f"argument --ctx: {given.ctx} is less than 0")
    if given.threads < 0:
        parser.error(f"argument --threads: {given.threads} is less than 0")
    return Options(
        model=given.model,
        host=given.host,
        port=given.port,
        alias=given.alias,
        api_key=read_key(given.api_key_file),
        parallel=given.parallel,
        context=given.ctx,
        embedding=given.embedding,
        threads=given.threads,
    )


def read_key(path: Path) -> str:
    """The key in `path`. Raises StartError when it cannot be read or is empty: a server without a key is never started."""
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"--api-key-file {path}: cannot be read: {error}") from error
    if not key:
        raise StartError(f"--api-key-file {path}: is empty: write the key into it")
    return key


def check_model(path: Path) -> None:
    """Refuse what llama.cpp would refuse with less clear words. Raises StartError."""
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise StartError(f"--model {path}: cannot be read: {error.strerror}") from error
    if magic != GGUF_MAGIC:
        raise StartError(
            f"--model {path}: is not a GGUF file: it begins with {magic!r} instead of {GGUF_MAGIC!r}"
        )


def start(options: Options) -> object:
    """Load the model and open the port; blocks until both are done. Returns the server, which lives as long as the object.

    Raises StartError; llama.cpp's own reason stands in the log lines before it.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(options.model)
    params.hostnames = [options.host]
    params.port = options.port
    params.model_alias = {options.alias}
    params.api_keys = [options.api_key]
    params.n_parallel = options.parallel
    params.n_ctx = options.context
    params.embedding = options.embedding
    params.endpoint_metrics = True
    if options.threads:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        if in_use(options.host, options.port):
            raise StartError(f"--port {options.port}: Address already in use on {options.host}") from error
        raise StartError(
            f"--model {options.model}: llama.cpp cannot load it; its own lines in this log say why"
        ) from error


def in_use(host: str, port: int) -> bool:
    """Whether somebody else listens on the port. llama.cpp reports a taken port and a broken model by the same exception."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def wait_for_stop() -> None:
    """Block until SIGTERM or SIGINT, whichever thread the kernel gives it to (llama.cpp has many)."""
    waker, wakened = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    wakened.recv(1)


def main(argv: Sequence[str] | None = None) -> int:
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        check_model(options.model)
        # Loading holds the interpreter lock, so no Python handler could run: until it is over SIGTERM keeps its default
        # action and ends the process at once.
        server = start(options)
    except StartError as error:
        sys.stderr.write(f"llamacpp_server: {error}\n")
        return 1
    wait_for_stop()
    # The object's end is what stops llama.cpp: it closes the port, ends the running requests and joins its threads.
    del server
    gc.collect()
    return 0


if __name__ == "__main__":
    sys.exit(main())
