"""Which model a request is for, and when the client's bytes are changed."""

import dataclasses
import json
from typing import Any, NamedTuple

import pytest

from llmop.domain.endpoint import RoutedModel
from llmop.gateway.admission import admit
from llmop.gateway.errors import Refusal
from llmop.gateway.routes import find_route


def model(name: str, *protocols: str, upstream: str = "") -> RoutedModel:
    return RoutedModel(
        name=name, deployment="default/d", protocols=protocols, created_at=0.0, upstream_model=upstream
    )


BOTH = model("both", "openai", "tgi")
OPENAI = model("llama", "openai")
RENAMED = model("public", "openai", upstream="tgi")
VECTORS = model("vectors", "embeddings")
TELLING = dataclasses.replace(OPENAI, name="telling", usage_in_stream=True)
MODELS = {one.name: one for one in (BOTH, OPENAI, RENAMED, TELLING, VECTORS)}


class Admission(NamedTuple):
    model: str
    body: bytes
    usage_asked: bool = False


def ask(path: str, body: bytes, header: str | None = None) -> Admission | Refusal:
    route = find_route(b"POST", path.encode())
    assert route is not None
    found = admit(route, header, body, MODELS)
    return found if isinstance(found, Refusal) else Admission(*found[:3])


def test_the_clients_own_bytes_are_kept_when_nothing_has_to_change() -> None:
    body = b'{ "model" : "llama", "n": 1.0, "x": [ ] }'
    assert Admission(model="llama", body=body) == ask("/v1/chat/completions", body)


def test_the_engine_reads_the_name_it_knows_and_everything_else_stays() -> None:
    admission = ask(
        "/v1/chat/completions", b'{"model":"public","temperature":0.25,"extra":{"model":"public"}}'
    )
    assert isinstance(admission, Admission)
    assert {"model": "tgi", "temperature": 0.25, "extra": {"model": "public"}} == json.loads(admission.body)


def test_the_path_decides_over_the_body() -> None:
    admission = ask("/models/llama/v1/completions", b'{"model":"whatever","prompt":"a"}')
    assert isinstance(admission, Admission)
    assert "llama" == admission.model
    assert {"model": "llama", "prompt": "a"} == json.loads(admission.body)


def test_the_only_model_that_speaks_tgi_needs_no_name() -> None:
    assert Admission(model="both", body=b"not looked at") == ask("/generate", b"not looked at")


def test_the_header_names_a_model() -> None:
    assert Admission(model="both", body=b"{}") == ask("/generate", b"{}", header="both")


@pytest.mark.parametrize(
    ("path", "body", "header", "status", "code"),
    [
        ("/v1/completions", b"{", None, 400, "invalid_request"),
        ("/v1/completions", b"[]", None, 400, "invalid_request"),
        ("/v1/completions", b"{}", None, 400, "model_missing"),
        ("/v1/completions", b'{"model":7}', None, 400, "model_missing"),
        ("/v1/completions", b'{"model":"none"}', None, 404, "model_not_found"),
        ("/v1/completions", b"\xff", None, 400, "invalid_request"),
        ("/generate", b"{}", "none", 404, "model_not_found"),
        ("/models/llama/generate", b"{}", None, 422, "dialect_not_supported"),
    ],
)
def test_refusals(path: str, body: bytes, header: str | None, status: int, code: str) -> None:
    refusal = ask(path, body, header)
    assert isinstance(refusal, Refusal)
    assert (status, code) == (refusal.status, refusal.code)


def test_several_tgi_models_need_a_name() -> None:
    route = find_route(b"POST", b"/generate")
    assert route is not None
    refusal = admit(route, None, b"{}", {"a": model("a", "tgi"), "b": model("b", "tgi")})
    assert isinstance(refusal, Refusal)
    assert "X-Model" in refusal.message


def test_a_model_that_makes_embeddings_is_reached_for_them_only() -> None:
    body = b'{"model":"vectors","input":"a"}'
    for path in ("/v1/embeddings", "/v1/embeddings?x=1", "/models/vectors/v1/embeddings"):
        assert Admission(model="vectors", body=body) == ask(path, body)
    for path in ("/v1/chat/completions", "/v1/completions", "/models/vectors/generate"):
        refusal = ask(path, body)
        assert isinstance(refusal, Refusal)
        assert (
            422,
            "dialect_not_supported",
            "the model 'vectors' makes embeddings and no text: use /v1/embeddings",
        ) == (refusal.status, refusal.code, refusal.message)


def test_the_usage_of_a_stream_is_asked_for_where_the_client_does_not() -> None:
    body = b'{"model":"telling", "n": 1.0, "stream":true} \n'
    asked = b'{"model":"telling", "n": 1.0, "stream":true,"stream_options":{"include_usage":true}}'
    assert Admission(model="telling", body=asked, usage_asked=True) == ask("/v1/completions", body)


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False, "x": 1}, {"include_usage": None}])
def test_a_client_that_says_no_to_usage_gets_none(options: dict[str, Any] | None) -> None:
    body = json.dumps({"model": "telling", "stream": True, "stream_options": options}).encode()
    admission = ask("/models/telling/v1/chat/completions", body)
    assert isinstance(admission, Admission)
    assert admission.usage_asked
    assert (options or {}) | {"include_usage": True} == json.loads(admission.body)["stream_options"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", b'{"model":"telling"}'),
        ("/v1/completions", b'{"model":"telling","stream":false}'),
        ("/v1/completions", b'{"model":"telling","stream":true,"stream_options":{"include_usage":true}}'),
        ("/v1/completions", b'{"model":"telling","stream":true,"stream_options":7}'),
        ("/v1/completions", b'{"model":"llama","stream":true}'),
        ("/v1/embeddings", b'{"model":"telling","stream":true}'),
    ],
)
def test_everybody_else_keeps_what_was_sent(path: str, body: bytes) -> None:
    admission = ask(path, body)
    assert isinstance(admission, Admission)
    assert (body, False) == (admission.body, admission.usage_asked)


@pytest.mark.parametrize("model", ["telling", "public"])
def test_what_is_nested_too_deeply_to_be_written_again_is_refused(model: str) -> None:
    deep = "[" * 300 + "]" * 300
    body = f'{{"model":"{model}","stream":true,"stream_options":{{}},"messages":{deep}}}'.encode()
    refusal = ask("/v1/chat/completions", body)
    assert isinstance(refusal, Refusal)
    assert (400, True) == (refusal.status, "nested too deeply" in refusal.message)
