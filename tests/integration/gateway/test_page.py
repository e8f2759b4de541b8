"""The page's files over the wire, and what the page reads of models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.integration.gateway.rig import Rig, gateway_rig
from tests.integration.gateway.upstreams import Workloads, asks, model, polite

from llmop.api.v1 import gateway_pb2
from llmop.gateway import page

STATIC = Path(page.__file__).parent / "static"
NO_KEY = {"authorization": ""}


async def test_the_page_needs_no_key_and_names_what_may_be_loaded(rig: Rig) -> None:
    index = await rig.ask("/?from=a-link", b"", NO_KEY, method="GET")
    assert (200, "text/html; charset=utf-8") == (index.status, index.headers["content-type"])
    assert ("nosniff", "no-referrer") == (
        index.headers["x-content-type-options"],
        index.headers["referrer-policy"],
    )
    policy = dict(
        each.strip().partition(" ")[::2] for each in index.headers["content-security-policy"].split(";")
    )
    assert ("'none'", "'self'", "'none'") == (
        policy["default-src"],
        policy["script-src"],
        policy["trusted-types"],
    )
    assert "unsafe" not in index.headers["content-security-policy"]
    for path in re.findall(r'(?:src|href)="([^#"]+)"', index.body.decode()):
        file = await rig.ask(f"/{path}", b"", NO_KEY, method="GET")
        assert (200, (STATIC / Path(path).name).read_bytes()) == (file.status, file.body)
        assert index.headers["content-security-policy"] == file.headers["content-security-policy"]


async def test_a_browser_that_has_a_file_gets_it_again_when_it_has_changed(rig: Rig) -> None:
    first = await rig.ask("/page/style.css", b"", NO_KEY, method="GET")
    assert "no-cache" == first.headers["cache-control"]
    tag = first.headers["etag"]
    again = await rig.ask(
        "/page/style.css", b"", NO_KEY | {"if-none-match": f'"other", W/{tag}'}, method="GET"
    )
    assert (304, b"", tag) == (again.status, again.body, again.headers["etag"])
    changed = await rig.ask("/page/style.css", b"", NO_KEY | {"if-none-match": '"other"'}, method="GET")
    assert (200, first.body) == (changed.status, changed.body)
    head = await rig.ask("/", b"", NO_KEY, method="HEAD")
    assert (200, b"") == (head.status, head.body)


async def test_everything_else_is_as_closed_as_it_was(rig: Rig) -> None:
    (engine,) = await rig.serve(polite)
    for path, method in (
        ("/", "POST"),
        ("/", "DELETE"),
        ("/page/style.css", "POST"),
        ("/v1/models", "GET"),
        ("/metrics", "GET"),
        ("/pages", "GET"),
        ("//v1/models", "GET"),
    ):
        assert 401 == (await rig.ask(path, b"{}", NO_KEY, method=method)).status, (method, path)
    for path in ("/page/", "/page/none.js", "/page/serve.py", "/page/%2e%2e/serve.py", "/page/../v1/models"):
        assert 404 == (await rig.ask(path, b"", NO_KEY, method="GET")).status, path
    assert 0 == len(engine.calls)
    assert 200 == (await rig.ask("/", b'{"inputs":"x"}')).status  # TGI's route, with a key
    assert "POST / HTTP/1.1" == engine.calls[0].line


def test_nothing_of_the_page_is_loaded_from_elsewhere_or_stands_inline() -> None:
    for path in STATIC.iterdir():
        text = path.read_text()
        addresses = set(re.findall(r"https?://[\w.]+", text))
        assert addresses <= {"http://www.w3.org"}, path  # the name of SVG, which nobody asks
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", text
        ), path
    index = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", index)


async def test_models_say_whether_somebody_answers_and_openai_s_fields_stay(folder: Path) -> None:
    workloads = Workloads()
    await workloads.start(folder / "workloads.sock")
    workloads.needs = {"panel": asks("m"), "handbook": asks("m", "soon")}
    async with gateway_rig(folder, workloads=folder / "workloads.sock") as rig:
        one, two = await rig.engine(), await rig.engine()
        draining = gateway_pb2.Endpoint.STATE_DRAINING
        coming = gateway_pb2.NextReplica(stage=gateway_pb2.NextReplica.STAGE_LOADING, ready_at=4_000_000_000)
        version = rig.control.publish(
            [
                one.endpoint(),
                two.endpoint(state=gateway_pb2.Endpoint.STATE_SUSPECT),
                (await rig.engine()).endpoint(state=draining, deployment="default/old"),
            ],
            [
                model("m"),
                model("old", deployment="default/old"),
                model("zero", deployment="default/zero", wakes=True),
                model("soon", deployment="default/soon", next_replica=coming),
                model("panel", "openai", deployment="tribunal:default/panel", virtual=True),
                model("handbook", "openai", deployment="assistant:default/handbook", virtual=True),
            ],
        )
        await rig.control.acknowledged(version)
        listed = (await rig.ask("/v1/models", b"", method="GET")).json()["data"]
        alone = (await rig.ask("/v1/models/zero", b"", method="GET")).json()
        await workloads.stop()
        version = rig.control.publish(
            [], [model("panel", "openai", deployment="tribunal:default/panel", virtual=True)]
        )
        await rig.control.acknowledged(version)
        gone = (await rig.ask("/v1/models/panel", b"", method="GET")).json()
        assert ("none", "llmop workloads does not answer") == (gone["llmop"]["state"], gone["llmop"]["why"])

    def facts(name: str) -> dict[str, Any]:
        (found,) = [each for each in listed if each["id"] == name]
        assert {"id", "object", "created", "owned_by", "llmop"} == found.keys()
        told: dict[str, Any] = found["llmop"]
        return told

    assert ("ready", 2, "deployment") == tuple(
        facts("m")[name] for name in ("state", "replicas_ready", "kind")
    )
    assert {
        "old": "draining",
        "zero": "asleep",
        "soon": "loading",
        "panel": "ready",
        "handbook": "loading",
    } == {name: facts(name)["state"] for name in ("old", "zero", "soon", "panel", "handbook")}
    assert ("waits for soon to load", facts("soon")["ready_in_seconds"]) == (
        facts("handbook")["why"],
        facts("handbook")["ready_in_seconds"],
    )
    assert facts("soon")["ready_in_seconds"] > 1_000_000
    assert ("tribunal", None) == (facts("panel")["kind"], facts("panel")["replicas_ready"])
    assert ("zero", "asleep") == (alone["id"], alone["llmop"]["state"])
