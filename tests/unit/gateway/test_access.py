"""Whose request it is, and whether that may still be."""

import dataclasses

import pytest

from llmop.domain.client import ClientKey, digest
from llmop.gateway import access, errors
from llmop.gateway.errors import Refusal
from llmop.gateway.heads import RequestHead, read_request_head
from llmop.gateway.keys import KEYLESS, OF_WORKLOADS

TEAM = ClientKey(name="default/team", digest=digest(b"team").hex())
WORKLOADS = ClientKey(name=OF_WORKLOADS, digest=digest(b"workloads").hex())


class Keys:
    def __init__(self, *keys: ClientKey) -> None:
        self._keys = {bytes.fromhex(key.digest): key for key in keys}

    def find(self, secret: bytes | None) -> ClientKey | None:
        return None if secret is None else self._keys.get(digest(secret))

    def behind(self, owner: bytes) -> ClientKey | None:
        return self._keys.get(bytes.fromhex(owner.decode()))


def head(secret: bytes | None, owner: ClientKey | None = None) -> RequestHead:
    headers = [(b"host", b"h")]
    if secret is not None:
        headers.append((b"authorization", b"Bearer " + secret))
    if owner is not None:
        headers.append((b"x-llmop-for", owner.digest.encode()))
    return read_request_head(headers, "1.1")


@pytest.mark.parametrize(
    "asked, keyless, has_table, expected",
    [
        pytest.param(head(b"team"), False, True, TEAM, id="its key's"),
        pytest.param(head(None), False, True, errors.UNAUTHENTICATED, id="nobody's"),
        pytest.param(head(b"x"), False, True, errors.UNAUTHENTICATED, id="a stranger's"),
        pytest.param(head(b"team"), True, True, KEYLESS, id="through the door without keys"),
        pytest.param(head(b"workloads", TEAM), False, True, TEAM, id="for its owner"),
        pytest.param(head(b"workloads", TEAM), True, True, TEAM, id="for its owner through the door"),
        pytest.param(head(b"team", TEAM), False, True, errors.NOT_FOR_OTHERS, id="of somebody else for it"),
        pytest.param(head(b"x", TEAM), False, True, errors.UNAUTHENTICATED, id="of a stranger for it"),
        pytest.param(head(b"workloads", TEAM), False, False, errors.NO_TABLE, id="before keys are known"),
        pytest.param(
            head(b"workloads", dataclasses.replace(TEAM, digest="00" * 32)),
            False,
            True,
            errors.OWNER_GONE,
            id="for one that is gone",
        ),
    ],
)
def test_whose_a_request_is(
    asked: RequestHead, keyless: bool, has_table: bool, expected: ClientKey | Refusal
) -> None:
    assert expected == access.whose(asked, Keys(TEAM, WORKLOADS), keyless=keyless, has_table=has_table)


NARROWED = dataclasses.replace(TEAM, models=("other",))


@pytest.mark.parametrize(
    "asked, key, keys, expected",
    [
        pytest.param(head(b"team"), TEAM, Keys(TEAM), None, id="nothing has changed"),
        pytest.param(head(b"team"), TEAM, Keys(), errors.UNAUTHENTICATED, id="the key is gone"),
        pytest.param(head(b"team"), TEAM, Keys(NARROWED), errors.unknown_model("m"), id="not for this model"),
        pytest.param(head(None), KEYLESS, Keys(), None, id="no key was asked for"),
        pytest.param(
            head(b"workloads", TEAM), TEAM, Keys(WORKLOADS), errors.OWNER_GONE, id="the owner is gone"
        ),
        pytest.param(
            head(b"workloads", TEAM),
            TEAM,
            Keys(TEAM),
            errors.UNAUTHENTICATED,
            id="workloads are let in no more",
        ),
    ],
)
def test_what_speaks_against_who_has_waited(
    asked: RequestHead, key: ClientKey, keys: Keys, expected: Refusal | None
) -> None:
    assert expected == access.objection(asked, key, "m", keys)
