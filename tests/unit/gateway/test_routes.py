"""What a request's path says."""

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
    assert Route(dialect=dialect, target=target, model=model) == find_route(url)


@pytest.mark.parametrize(
    "url",
    [
        b"/v1/models",
        b"/healthz",
        b"/v1/files",
        b"/tokenize",
        b"/models/",
        b"/models/a/v1/models",
        b"//generate",
    ],
)
def test_everything_else_is_not_hot(url: bytes) -> None:
    assert find_route(url) is None
