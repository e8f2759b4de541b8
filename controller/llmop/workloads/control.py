"""The line to the controller: which tribunals, assistants and keys there are. The only module of workloads that speaks gRPC.

Whatever happens to this line, what was heard last stays in force.
"""

import asyncio
import functools
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from llmop.api.v1 import resources_pb2, resources_pb2_grpc
from llmop.domain import resources
from llmop.workloads.known import Virtual
from llmop.workloads.owners import Owners

LOG = logging.getLogger(__name__)

Put = Callable[[Sequence[resources.Resource]], Awaitable[None]]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


async def watch(target: str, virtual: Virtual, owners: Owners, heard: set[str]) -> None:
    """Until cancelled. `heard` has the kinds of which all is known that there is, for as long as the controller is there."""
    async with grpc.aio.insecure_channel(target, options=_OPTIONS) as channel, asyncio.TaskGroup() as group:
        stub: Any = resources_pb2_grpc.ResourceServiceStub(channel)  # type: ignore[no-untyped-call]
        for kind in resources.VIRTUAL:
            group.create_task(_watch(stub, kind, functools.partial(virtual.put, kind), heard))
        group.create_task(_watch(stub, resources.API_KEY, owners.put, heard))


async def _watch(stub: Any, kind: str, put: Put, heard: set[str]) -> None:
    pause = _FIRST_PAUSE_S
    is_away = False
    while True:
        try:
            async for changed in _states(stub, kind):
                pause, is_away = _FIRST_PAUSE_S, False
                await put(changed)
                heard.add(kind)
        except grpc.aio.AioRpcError as error:
            if not is_away:
                words = f"the controller is away, going on with the last {resources.KINDS[kind].plural}"
                LOG.warning("%s: %s", words, error.details())
            is_away = True
        except Exception:  # what was heard last outlives every fault of this line
            LOG.exception("the %s could not be taken over", resources.KINDS[kind].plural)
        finally:
            heard.discard(kind)
        await asyncio.sleep(pause)
        pause = min(_LONGEST_PAUSE_S, pause * 2)


async def _states(stub: Any, kind: str) -> Any:
    """All objects of a kind, again after every change."""
    known: dict[str, resources.Resource] = {}
    is_complete = False
    async for message in stub.Watch(resources_pb2.WatchRequest(kind=kind)):
        if message.type == resources_pb2.WatchResponse.TYPE_BOOKMARK:
            if is_complete:
                continue
            is_complete = True
        elif message.type == resources_pb2.WatchResponse.TYPE_DELETED:
            known.pop(message.row.object.metadata.uid, None)
        else:
            stored = _resource(message.row.object)
            before = known.get(stored.uid)
            known[stored.uid] = stored
            if before == stored:  # its status changed
                continue
        if is_complete:
            yield list(known.values())


def _resource(message: Any) -> resources.Resource:
    metadata = message.metadata
    return resources.Resource(
        kind=message.kind,
        name=metadata.name,
        namespace=metadata.namespace,
        uid=metadata.uid,
        created_at=metadata.creation_time.seconds + metadata.creation_time.nanos / 1e9,
        spec=json.loads(message.spec_json or "{}"),
    )
