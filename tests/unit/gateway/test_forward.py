"""Whose request goes on to `llmop workloads`: that of the key that was checked, however many a head names."""

import pytest

from llmop.gateway.forward import _headers
from llmop.gateway.heads import Headers, read_request_head


@pytest.mark.parametrize(
    "keys",
    [
        [(b"authorization", b"Bearer a")],
        [(b"x-api-key", b"a")],
        [(b"x-api-key", b"a"), (b"x-api-key", b"b")],
        [(b"authorization", b"Bearer a"), (b"x-api-key", b"b")],
        [(b"x-api-key", b"a"), (b"authorization", b"Bearer b")],
        [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")],
        [(b"authorization", b"Bearer a"), (b"authorization", b"Basic x"), (b"x-api-key", b"b")],
        [(b"authorization", b"Bearer "), (b"x-api-key", b"b")],
    ],
)
def test_the_owner_is_who_was_let_in(keys: Headers) -> None:
    checked = read_request_head([(b"host", b"g"), *keys], "1.1").key
    assert checked is not None
    sent = dict(_headers(keys, is_keyless=False))
    assert sent["authorization"] == f"Bearer {checked.decode()}"
    assert "authorization" not in dict(_headers(keys, is_keyless=True))
