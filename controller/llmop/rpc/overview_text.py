"""The overview as JSON. At each look hardly anything has changed, so the text of a deployment is kept as long as nothing of it has."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from llmop.domain import endpoint, resources
from llmop.planner import autoscale
from llmop.rpc import convert, overview


class Text(NamedTuple):
    """`json` begins with the time, `{"now":NOW,`. `etag` is the same as long as all but the time is."""

    json: str
    etag: str
    now: int


class Texts:
    """Keeps what it has made last. One call at a time; it may be made in a thread, for everything in it is its own or never changes."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[object, str]] = {}  # by uid: what it was made of, and the text

    def text(
        self,
        deployments: Iterable[resources.Resource],
        replicas: Iterable[resources.Resource],
        clusters: Iterable[resources.Resource],
        *,
        loads: Mapping[str, autoscale.Load],
        following: Mapping[str, endpoint.NextReplica],
        seen_at: Mapping[str, float],
        now: float,
    ) -> Text:
        """The arguments are those of `overview.overview`, and so is what is in the text."""
        listed = overview.listing(deployments, replicas, clusters)
        kept: dict[str, tuple[object, str]] = {}
        for each, of in listed.deployments:
            name = overview.name_of(each)
            load, coming = loads.get(name), following.get(name)
            made_of = (
                each.resource_version,
                [(one.uid, one.resource_version) for one in of],
                load and (load.in_flight, load.queued, load.tokens_per_s, load.is_whole),
                overview.next_of(each.status, coming or endpoint.NextReplica(), now),
            )
            before = self._kept.get(each.uid)
            if before is None or before[0] != made_of:
                before = (made_of, convert.to_json(overview.deployment(each, of, load, coming, now)))
            kept[each.uid] = before
        self._kept = kept
        places = ",".join(
            convert.to_json(overview.cluster(each, seen_at.get(each.name))) for each in listed.clusters
        )
        rest = (
            f'"clusters":[{places}],"deployments":[{",".join(text for _, text in kept.values())}],'
            f'"left_out":{convert.to_json(listed.left_out)}}}'
        )
        etag = hashlib.blake2b(rest.encode(), digest_size=16).hexdigest()
        return Text(json=f"{head(int(now))}{rest}", etag=etag, now=int(now))


def head(now: int) -> str:
    """How the text of that time begins."""
    return f'{{"now":{now},'
