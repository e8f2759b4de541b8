"""Logs of several replicas as one stream: who comes joins, who ends leaves, a lost connection goes on where it was."""

import dataclasses
import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from llmop.api.v1 import logs_pb2
from llmop.cli.client import Client
from llmop.cli.errors import CliError, ExitCode
from llmop.cli.session import say
from llmop.domain import resources

_AGAIN_S = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Of each log: which one, from where. `lines` None = all, `since` epoch seconds, 0 = from the beginning."""

    namespace: str
    source: Any = logs_pb2.TailRequest.SOURCE_ENGINE
    lines: int | None = None
    since: float = 0.0
    previous: bool = False

    def request(self, replica: str, *, follow: bool, offset: int | None = None) -> Any:
        return logs_pb2.TailRequest(
            namespace=self.namespace,
            replica=replica,
            source=self.source,
            lines=self.lines if offset is None else None,
            since=self.since if offset is None else 0.0,
            previous=self.previous,
            follow=follow,
            offset=offset,
        )


class Printer:
    """Whole lines on stdout, with who wrote them in front; without a prefix the bytes as they come."""

    def __init__(self, *, prefixed: bool) -> None:
        self._prefixed = prefixed
        self._rest: dict[str, bytes] = {}

    def write(self, replica: str, data: bytes) -> None:
        if not self._prefixed:
            sys.stdout.buffer.write(data)
        else:
            *lines, rest = (self._rest.pop(replica, b"") + data).split(b"\n")
            if rest:
                self._rest[replica] = rest
            head = f"[{replica}] ".encode()
            sys.stdout.buffer.write(b"".join(head + line + b"\n" for line in lines))
        sys.stdout.buffer.flush()

    def end(self, replica: str) -> None:
        """A last line without its end gets one, so that nobody else's stands behind it."""
        if replica in self._rest:
            self.write(replica, b"\n")


def read(client: Client, wanted: Wanted, replica: str, printer: Printer, *, follow: bool) -> None:
    """One log. Raises ServerError."""
    for answer in client.stream(client.logs.Tail, wanted.request(replica, follow=follow)):
        printer.write(replica, answer.data)
    printer.end(replica)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _News:
    """What a thread has to tell: data of a replica, its end, a change of what is watched, or an error that ends all."""

    replica: str = ""
    data: bytes = b""
    is_end: bool = False
    change: Any = None
    kind: str = ""
    error: CliError | None = None


class Follower:
    """The logs of all replicas of a deployment, until it is gone and they have ended."""

    def __init__(self, client: Client, wanted: Wanted, deployment: str, printer: Printer) -> None:
        self._client = client
        self._wanted = wanted
        self._deployment = deployment
        self._printer = printer
        self._queue: queue.SimpleQueue[_News] = queue.SimpleQueue()
        self._open: set[str] = set()
        self._known: set[str] = set()  # by uid
        self._ends: dict[str, str] = {}
        self._exists = False
        self._synced: set[str] = set()  # kinds whose first state is known

    def run(self) -> None:
        """Raises CliError."""
        self._start(self._watch, resources.MODEL_DEPLOYMENT, f"metadata.name={self._deployment}")
        self._start(self._watch, resources.REPLICA, f"spec.deployment={self._deployment}")
        while self._open or self._exists or len(self._synced) < 2:
            news = self._queue.get()
            if news.error is not None:
                raise news.error
            if news.change is None:
                self._take(news)
            elif news.change.type == "SYNCED":
                self._synced.add(news.kind)
            elif news.kind == resources.MODEL_DEPLOYMENT:
                self._exists = news.change.type != "DELETED"
            elif news.change.type != "DELETED":
                self._replica(news.change.row.object, is_first=resources.REPLICA not in self._synced)

    def _take(self, news: _News) -> None:
        if not news.is_end:
            self._printer.write(news.replica, news.data)
            return
        self._printer.end(news.replica)
        self._open.discard(news.replica)
        why = self._ends.get(news.replica)
        say(f"{news.replica} has ended{f': {why}' if why else ''}")

    def _replica(self, item: Any, *, is_first: bool) -> None:
        name, uid = item.metadata.name, item.metadata.uid
        end = json.loads(item.status_json).get("end")
        if end:
            message = f": {end['message']}" if end.get("message") else ""
            self._ends[name] = f"{end.get('reason')}{message}"
        if uid in self._known or (is_first and end):
            return
        self._known.add(uid)
        self._open.add(name)
        if not is_first:
            say(f"{name} has come")
        # All of what comes later is new; `lines` and `since` are about the past.
        wanted = self._wanted if is_first else dataclasses.replace(self._wanted, lines=None, since=0.0)
        self._start(self._read, name, wanted)

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()

    def _watch(self, kind: str, fields: str) -> None:
        try:
            for change in self._client.watch(
                kind, self._wanted.namespace, field_selector=fields, lost=self._lost
            ):
                self._queue.put(_News(change=change, kind=kind))
        except CliError as error:
            self._queue.put(_News(error=error))
        except ValueError:
            """The channel was closed under the watch: the command is over."""

    def _lost(self, sentence: str) -> None:
        say(sentence)

    def _read(self, name: str, wanted: Wanted) -> None:
        offset: int | None = None
        while True:
            request = wanted.request(name, follow=True, offset=offset)
            try:
                for answer in self._client.stream(self._client.logs.Tail, request):
                    offset = answer.offset
                    self._queue.put(_News(replica=name, data=answer.data))
            except ValueError:
                return
            except CliError as error:
                if error.code in (ExitCode.NETWORK, ExitCode.UNAVAILABLE):
                    time.sleep(_AGAIN_S)
                    continue
                if error.code is not ExitCode.NOT_FOUND:
                    self._queue.put(_News(error=error))
                    return
            self._queue.put(_News(replica=name, is_end=True))
            return


def gone(rows: Sequence[Any], events: Sequence[Any], deployment: Any) -> list[tuple[float, str]]:
    """When the replicas of a deployment ended that are over, and their names, the latest last; `rows` are those that the store has.

    Of those that the store has not any more, events tell.
    """
    from llmop.cli import happenings
    from llmop.domain import times

    ended: dict[str, float] = {}
    living = set()
    for row in rows:
        item = row.object
        if json.loads(item.spec_json).get("deployment") != deployment.metadata.name:
            continue
        end = json.loads(item.status_json).get("end")
        if end:
            ended[item.metadata.name] = times.from_rfc3339(end["at"])
        else:
            living.add(item.metadata.name)
    for row in happenings.about_replicas(events, deployment, [row.object for row in rows]):
        name = str(json.loads(row.object.spec_json)["regarding"]["name"])
        if name not in living:
            ended[name] = max(ended.get(name, 0.0), happenings.last_seen(row)[0])
    return sorted((at, name) for name, at in ended.items())
