"""`llmctl bench startup`: one replica of a deployment after the other is started, measured and removed."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmop.api.v1 import logs_pb2, resources_pb2
from llmop.cli import conditions, printing, progress, talking, targets
from llmop.cli.bench import measuring, results, startup
from llmop.cli.client import ServerError
from llmop.cli.errors import CliError, ExitCode, UsageError
from llmop.cli.session import Session
from llmop.cli.watching import Feed, Interest
from llmop.domain import resources

_AGAIN_S = 0.01  # between two questions to the gateway, and between two looks at what the watch has told
_LONGEST_NAME = 40
_GONE_S = 300.0


def measure(
    session: Session,
    arguments: Sequence[str],
    found: talking.Gateway,
    *,
    rounds: int,
    timeout_s: float,
    label: str,
    folder: Path | None,
) -> None:
    """Raises CliError, KeyboardInterrupt after Ctrl-C, when what was measured is printed and nothing is left running."""
    wanted = targets.parse(arguments)
    if any(each.kind.name != resources.MODEL_DEPLOYMENT or not each.name for each in wanted):
        raise UsageError("name deployments: md/NAME, or several of them")
    namespace = session.effective_namespace
    manifests = [
        printing.manifest(session.client.get(resources.MODEL_DEPLOYMENT, namespace, each.name).object)
        for each in wanted
    ]
    this = results.Run(
        label=label, conditions=measuring.conditions(session, found, api="chat", warm_up_s=0.0, seed=0)
    )
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with progress.shown() as shown:
            # Turn by turn, so that a machine that gets busier is not the fault of the last deployment.
            for number in range(1, rounds + 1):
                for manifest in manifests:
                    name = str(manifest["metadata"]["name"])
                    shown.show(
                        {targets.label(resources.MODEL_DEPLOYMENT, name): f"round {number} of {rounds}"}
                    )
                    seen = _Round(session, found, manifest, timeout_s).run()
                    this = dataclasses.replace(this, startups=(*this.startups, seen))
                    if folder is not None:
                        results.write(folder / "bench.json", results.to_json(this))
    finally:
        if this.startups:
            measuring.print_runs([this])
            if folder is not None:
                measuring.write_reports(folder, [this])


class _Round:
    """One replica, from the apply of its deployment until nothing of it is left."""

    def __init__(
        self, session: Session, found: talking.Gateway, manifest: dict[str, Any], timeout_s: float
    ) -> None:
        self._session = session
        self._client = session.client
        self._gateway = found
        self._of = str(manifest["metadata"]["name"])
        self._namespace = session.effective_namespace
        self._name = f"{self._of[:_LONGEST_NAME].rstrip('-.')}-bench-{session.clock.suffix(5)}"
        self._manifest = startup.copy(manifest, self._name)
        self._timeout_s = timeout_s
        self._replica = self._job = ""
        self._moments: dict[str, float] = {}

    def run(self) -> startup.Startup:
        """Raises CliError when it stalls or takes too long."""
        interests = [
            Interest(kind=resources.REPLICA, namespace=self._namespace),
            Interest(kind=resources.MODEL_DEPLOYMENT, namespace=self._namespace, name=self._name),
        ]
        feed = Feed(self._client, interests)
        applied_at = self._session.clock.now()
        try:
            request = resources_pb2.ApplyRequest(
                manifest_json=json.dumps(self._manifest),
                namespace=self._namespace,
                field_manager="llmctl-bench",
            )
            self._client.call(self._client.resources.Apply, request)
            self._follow(feed)
            self._moments |= startup.of_log(self._log())
        finally:
            self._remove(feed)
        image = str(self._manifest["spec"].get("image") or "")
        return startup.startup(self._of, image, self._job, applied_at, self._moments)

    def _follow(self, feed: Feed) -> None:
        """Until it has answered through the gateway and the controller takes it for ready."""
        clock = self._session.clock
        deadline = clock.monotonic() + self._timeout_s
        starts = False
        while not {"ready", "answered"} <= self._moments.keys():
            news = feed.next(_AGAIN_S)
            now = clock.now()
            if news is not None and news[1].row is not None:
                starts = self._take(news[1].row.object, now) or starts
            elif starts and "answered" not in self._moments and self._answers():
                self._moments["answered"] = clock.now()
            if clock.monotonic() > deadline:
                missing = next(step for step in startup.STEPS if step not in self._moments)
                raise CliError(
                    f"error: {self._of}: no {missing} within {self._timeout_s:g}s; --timeout allows more",
                    ExitCode.TIMEOUT,
                )

    def _take(self, item: Any, now: float) -> bool:
        """Whether the engine was started, so that it may answer soon."""
        if item.kind == resources.MODEL_DEPLOYMENT:
            if why := conditions.state(item).stalled:
                raise CliError(f"error: {self._of}: stalled: {why}", ExitCode.UNEXPECTED)
            return False
        if json.loads(item.spec_json).get("deployment") != self._name:
            return False
        status = json.loads(item.status_json)
        self._replica = self._replica or item.metadata.name
        if item.metadata.name != self._replica:
            return False
        if end := status.get("end"):
            raise CliError(
                f"error: {self._of}: its replica ended: {end.get('reason')}: {end.get('message')}",
                ExitCode.UNEXPECTED,
            )
        for step, at in startup.of_replica(item).items():
            self._moments.setdefault(step, at)
        if status.get("jobId"):
            self._job = str(status["jobId"])
            self._moments.setdefault("submitted", now)
        return status.get("phase") in ("Loading", "Ready")

    def _answers(self) -> bool:
        """Whether the gateway gives a first token of it."""
        body = {
            "model": self._name,
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 1,
            "stream": True,
        }
        try:
            for event in self._gateway.events(talking.under(self._name, "/v1/chat/completions"), body):
                if any((each.get("delta") or {}).get("content") for each in event.get("choices") or ()):
                    return True
        except talking.GatewayError as error:
            if error.code in (ExitCode.UNAUTHENTICATED, ExitCode.FORBIDDEN, ExitCode.NETWORK):
                raise
        return False

    def _log(self) -> str:
        request = logs_pb2.TailRequest(
            namespace=self._namespace, replica=self._replica, source=logs_pb2.TailRequest.SOURCE_JOB
        )
        data = b"".join(answer.data for answer in self._client.stream(self._client.logs.Tail, request))
        return data.decode("utf-8", "replace")

    def _remove(self, feed: Feed) -> None:
        """It and its job: the next one shall not wait for its place."""
        request = resources_pb2.DeleteRequest(
            kind=resources.MODEL_DEPLOYMENT, namespace=self._namespace, name=self._name
        )
        try:
            self._client.call(self._client.resources.Delete, request)
        except ServerError as error:
            if error.code is ExitCode.NOT_FOUND:  # the apply was refused
                return
            raise
        deadline = self._session.clock.monotonic() + _GONE_S
        while self._session.clock.monotonic() < deadline:
            news = feed.next(1.0)
            if news and news[1].type == "DELETED" and news[1].row.object.metadata.name == self._name:
                return
        raise CliError(
            f"error: {self._name} is not gone after {_GONE_S:g}s; llmctl why md/{self._name}",
            ExitCode.TIMEOUT,
        )
