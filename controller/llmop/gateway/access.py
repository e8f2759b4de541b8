"""Whose request it is, and whether that may still be: asked when a head was read, and again when a request has waited. Pure."""

from typing import Protocol

from llmop.domain.client import ClientKey
from llmop.gateway import errors
from llmop.gateway.errors import Refusal
from llmop.gateway.heads import RequestHead
from llmop.gateway.keys import KEYLESS, is_reserved


class Keys(Protocol):
    """Those in force."""

    def find(self, secret: bytes | None) -> ClientKey | None: ...

    def behind(self, owner: bytes) -> ClientKey | None: ...


def whose(head: RequestHead, keys: Keys, *, keyless: bool, has_table: bool) -> ClientKey | Refusal:
    """The key that a request counts for. `keyless`: it came through the door that asks for none; `has_table`: the keys that come from the
    controller are known.
    """
    owner = head.wishes.owner
    if owner is None:
        return KEYLESS if keyless else keys.find(head.key) or errors.UNAUTHENTICATED
    speaker = keys.find(head.key)
    if speaker is None:
        return errors.UNAUTHENTICATED
    if not is_reserved(speaker.name):
        return errors.NOT_FOR_OTHERS
    if not has_table:
        return errors.NO_TABLE
    return keys.behind(owner) or errors.OWNER_GONE


def objection(head: RequestHead, key: ClientKey, model: str, keys: Keys) -> Refusal | None:
    """Why a request that was let in with `key` gets no replica any more, in the words that it would hear if it came now; None: it may go on."""
    keyless = key is KEYLESS and head.wishes.owner is None
    found = whose(head, keys, keyless=keyless, has_table=True)
    if isinstance(found, Refusal):
        return found
    if found.models and model not in found.models:
        return errors.unknown_model(model)
    return None
