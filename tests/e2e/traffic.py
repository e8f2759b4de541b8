"""Steady small load through a gateway, in both dialects, streamed and not; every failure is kept with its time."""

from __future__ import annotations

import collections
import dataclasses
import http.client
import json
import threading
import time
from typing import Any

PAUSE = 0.05  # seconds between two requests of one kind
KINDS = ("chat", "chat-stream", "generate", "generate-stream")

BROKEN = frozenset({-1, 0, 502, 503})  # what clients of a killed engine see


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """`at` is seconds since the traffic began; `status` is 0 when there was no answer; `phase` is what was going on."""

    at: float
    kind: str
    status: int
    problem: str
    phase: str


class Traffic:
    """Four threads, one for each kind of request, each with one request under way at a time.

    An answer counts when it is complete: status 200, a text, and for streams the last event.
    """

    def __init__(self, port: int, key: str, model: str) -> None:
        self._port = port
        self._key = key
        self._model = model
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._began = time.monotonic()
        self._phase = "start"
        self._forgiven: dict[str, frozenset[int]] = {}
        self.answered: collections.Counter[str] = collections.Counter()
        self.by_phase: collections.Counter[str] = collections.Counter()
        self.replicas: set[str] = set()
        self._failures: list[Failure] = []

    def start(self) -> None:
        for kind in KINDS:
            thread = threading.Thread(target=self._run, args=(kind,), name=f"traffic-{kind}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def phase(self, name: str, *, allowed: frozenset[int] = frozenset()) -> None:
        """What is going on from now on, and which refusals are right meanwhile."""
        with self._lock:
            self._phase = name
            self._forgiven[name] = allowed
            self.replicas.clear()

    @property
    def failures(self) -> list[Failure]:
        """Without what its phase allowed. A request that was under way when a phase began belongs to the new one."""
        with self._lock:
            return [
                failure
                for failure in self._failures
                if failure.status not in self._forgiven.get(failure.phase, frozenset())
            ]

    def __str__(self) -> str:
        counts = ", ".join(f"{self.answered[kind]} {kind}" for kind in KINDS)
        return f"{counts}; by phase {dict(self.by_phase)}; {len(self._failures)} not answered with 200"

    def _run(self, kind: str) -> None:
        connection = self._connection()
        number = 0
        while not self._stop.is_set():
            number += 1
            status, problem, replica = 0, "", ""
            try:
                path, body = request(kind, self._model, number)
                connection.request("POST", path, json.dumps(body), self._headers())
                response = connection.getresponse()
                status, replica = response.status, response.getheader("x-llmop-replica") or ""
                problem = complaint(kind, status, response.read().decode(errors="replace"))
            except (OSError, http.client.HTTPException) as error:
                problem = f"{type(error).__name__}: {error}"
                status = -1 if status == 200 else status  # an answer that was broken off
            with self._lock:
                self.by_phase[self._phase] += 1
                if problem:
                    self._failures.append(
                        Failure(
                            at=round(time.monotonic() - self._began, 2),
                            kind=kind,
                            status=status,
                            problem=f"{problem} ({replica})",
                            phase=self._phase,
                        )
                    )
                else:
                    self.answered[kind] += 1
                    self.replicas.add(replica)
            if problem:
                connection.close()
                connection = self._connection()
            self._stop.wait(PAUSE)
        connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)

    def _headers(self) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self._key}",
            "Content-Type": "application/json",
            "X-Model": self._model,
        }


def request(kind: str, model: str, number: int) -> tuple[str, dict[str, Any]]:
    """Path and body. Streams are longer, so that some are always under way."""
    prompt = f"Say something about {number}."
    if kind.startswith("chat"):
        stream = kind == "chat-stream"
        messages = [{"role": "user", "content": prompt}]
        tokens = 40 if stream else 5
        return "/v1/chat/completions", {
            "model": model,
            "messages": messages,
            "max_tokens": tokens,
            "stream": stream,
        }
    stream = kind == "generate-stream"
    path = "/generate_stream" if stream else "/generate"
    return path, {"inputs": prompt, "parameters": {"max_new_tokens": 40 if stream else 5}}


def complaint(kind: str, status: int, text: str) -> str:
    """What is wrong with an answer, "" when it is complete."""
    if status != 200:
        return f"{status} {text[:300]}"
    if kind == "chat":
        return "" if json.loads(text)["choices"][0]["message"]["content"] else f"no text: {text[:300]}"
    if kind == "generate":
        return "" if json.loads(text)["generated_text"] else f"no text: {text[:300]}"
    events = [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]
    broken = next((event for event in events if '"error"' in event), "")
    if broken:
        return f"the stream says {broken[:300]}"
    if kind == "chat-stream":
        return "" if events and events[-1] == "[DONE]" else f"the stream ends with {text[-200:]}"
    is_complete = bool(events) and json.loads(events[-1]).get("generated_text") is not None
    return "" if is_complete else f"the stream ends with {text[-200:]}"
