"""What a request's path says."""

import dataclasses

import pytest

from llmop.gateway.errors import Dialect
from llmop.gateway.routes import Route, find_route


@pytest.mark.parametrize(
    ("url", "dialect", "target", "model"),
    [
        (b"/v1/chat/completions", Dialect.OPENAI, b"/v1/chat/completions", None),
        (b"/v1/completions", Dialect.OPENAI, b"/v1/completions", None),
        (b"/v1/embeddings?x=1", Dialect.OPENAI, b"/v1/embeddings?x=1", None),
        (b"/generate", Dialect.TGI, b"/generate", None),
        (b"/generate_stream", Dialect.TGI, b"/generate_stream", None),
        (b"/", Dialect.TGI, b"/", None),
        (b"/tokenize", Dialect.TGI, b"/tokenize", None),
        (b"/models/tiny/chat_tokenize", Dialect.TGI, b"/chat_tokenize", "tiny"),
        (b"http://gateway:8080/generate", Dialect.TGI, b"/generate", None),
        (b"/models/tiny/generate", Dialect.TGI, b"/generate", "tiny"),
        (b"/models/tiny/generate_stream", Dialect.TGI, b"/generate_stream", "tiny"),
        (b"/models/tiny", Dialect.TGI, b"/", "tiny"),
        (b"/models/tiny/", Dialect.TGI, b"/", "tiny"),
        (b"/models/org/tiny/v1/chat/completions", Dialect.OPENAI, b"/v1/chat/completions", "org/tiny"),
        (b"/models/org%2Ftiny/v1/completions", Dialect.OPENAI, b"/v1/completions", "org/tiny"),
        (b"/models/org%2Fgenerate", Dialect.TGI, b"/", "org/generate"),
        (b"/models/org/tiny/?q=1", Dialect.TGI, b"/?q=1", "org/tiny"),
    ],
)
def test_hot_routes(url: bytes, dialect: Dialect, target: bytes, model: str | None) -> None:
    route = find_route(b"POST", url)
    assert route is not None
    assert (dialect, target, model, b"POST") == (route.dialect, route.target, route.model, route.method)


def test_what_is_asked_of_a_replica_without_a_body() -> None:
    info = Route(dialect=Dialect.TGI, target=b"/info", method=b"GET", generates=False)
    assert info == find_route(b"GET", b"/info")
    assert dataclasses.replace(info, target=b"/info?x", model="org/tiny") == find_route(
        b"GET", b"/models/org%2Ftiny/info?x"
    )
    assert find_route(b"POST", b"/info") is None
    assert find_route(b"HEAD", b"/info") is None


def test_only_texts_of_the_openai_dialect_say_in_the_body_whether_they_stream() -> None:
    def streams(url: bytes) -> bool:
        route = find_route(b"POST", url)
        return route is not None and route.streams

    assert streams(b"/models/a/v1/completions")
    assert streams(b"/v1/chat/completions")
    assert not streams(b"/v1/embeddings")
    assert not streams(b"/")


@pytest.mark.parametrize(
    "url",
    [
        b"/v1/models",
        b"/healthz",
        b"/v1/files",
        b"/info",
        b"/models/",
        b"/models/a/v1/models",
        b"//generate",
    ],
)
def test_everything_else_is_not_hot(url: bytes) -> None:
    assert find_route(b"POST", url) is None
