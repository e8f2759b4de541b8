"""How many tokens an answer took: read where the engine says it, estimated where it does not. Pure.

Engines say it in a member whose name ends in `_tokens`: `usage` of the OpenAI dialect, `details` of a TGI stream's last event, and the
headers of TGI's unary answers. Those bytes are searched for; nothing is parsed that does not hold them.
"""

import dataclasses
import re
from typing import Any, NamedTuple

import orjson

_MARK = b'_tokens":'  # no text can look like it: quotes are escaped there
_KEY = b'"prompt_tokens"'
_PROMPT = re.compile(rb'"prompt_tokens"\s*:\s*(\d{1,15})')
_COMPLETION = re.compile(rb'"completion_tokens"\s*:\s*(\d{1,15})')
# The common case of both: they follow each other without blanks, with nothing or `total_tokens` (vLLM) between them. It is a pattern of its own
# because one that allows for blanks takes twice as long.
_BOTH = re.compile(rb'"prompt_tokens":(\d{1,15}),(?:"total_tokens":\d{1,15},)?"completion_tokens":(\d{1,15})')
_REACH = 256  # bytes around that key within which the other number stands
_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_EVENT = re.compile(rb".*?(?:\r\n\r\n|\n\n|\r\r|\Z)", re.DOTALL)
_LONGEST_EVENT = 64 * 1024  # a longer one is passed on in pieces and not looked at
_BYTES_PER_TOKEN = 4
_BEYOND_BELIEF = 10**15  # tokens, as above; sums of what is below have room in 64 bits


class Usage(NamedTuple):
    """Tokens of one request."""

    prompt: int
    completion: int
    estimated: bool = False


def estimate(asked: int, completion: int) -> Usage:
    """For answers whose engine has not said it; `asked` is the size of the request's body in bytes."""
    return Usage(asked // _BYTES_PER_TOKEN, completion, estimated=True)


def read(answer: bytes) -> tuple[int, int, bool] | None:
    """What a JSON answer says of itself, in one piece: the fields of a Usage."""
    place = answer.rfind(_KEY)
    if place < 0:
        return None
    both = _BOTH.match(answer, place)
    if both is not None:
        return int(both[1]), int(both[2]), False
    prompt = _PROMPT.match(answer, place)
    if prompt is None:
        return None
    completion = _COMPLETION.search(answer, max(0, place - _REACH), place + _REACH)  # embeddings have none
    return int(prompt[1]), int(completion[1]) if completion else 0, False


@dataclasses.dataclass(slots=True)
class Answer:
    """Looks through the pieces of a JSON answer, however long, and keeps little of it."""

    size: int = 0
    _seam: bytes = b""
    _note: bytes = b""

    def feed(self, piece: bytes) -> bytes:
        """What goes on to the client: the same."""
        text = self._seam + piece
        place = text.rfind(_KEY)
        if place >= 0 and place + _REACH > len(self._seam):  # else it was read to its end before
            self._note = text[max(0, place - _REACH) : place + _REACH]
        self.size += len(piece)
        self._seam = text[-2 * _REACH :]
        return piece

    def finish(self) -> bytes:
        return b""

    def usage(self, asked: int) -> Usage:
        said = read(self._note)
        return Usage(*said) if said is not None else estimate(asked, self.size // _BYTES_PER_TOKEN)


class Stream:
    """Looks through the events of a stream in whatever pieces they come. With `cut`, the event that holds nothing but the usage is
    taken out: the client did not ask for it.
    """

    __slots__ = ("_cut", "_rest", "_usage", "events")

    def __init__(self, *, cut: bool) -> None:
        self._cut = cut
        self._rest = b""
        self._usage: Usage | None = None
        self.events = 0

    def feed(self, piece: bytes) -> bytes:
        """What goes on to the client now; with `cut`, an event that is not complete waits."""
        self.events += piece.count(b"data:")
        if not self._rest and piece.endswith(_ENDS):
            if _MARK in piece:
                return self._read(piece)
            return piece
        return self._feed_part(piece)

    def _feed_part(self, piece: bytes) -> bytes:
        text = self._rest + piece
        end = max(text.rfind(end) + len(end) if end in text else 0 for end in _ENDS)
        if len(text) - end > _LONGEST_EVENT:
            end = len(text)
        self._rest = text[end:]
        whole = text[:end]
        if _MARK in whole:
            whole = self._read(whole)
        return whole if self._cut else piece

    def finish(self) -> bytes:
        """What is left for the client when nothing more comes."""
        rest, self._rest = self._rest, b""
        if _MARK in rest:
            rest = self._read(rest)
        return rest if self._cut else b""

    def _read(self, events: bytes) -> bytes:
        kept = []
        for event in _EVENT.findall(events):
            if _MARK in event and self._is_usage_alone(event) and self._cut:
                continue
            kept.append(event)
        return b"".join(kept)

    def _is_usage_alone(self, event: bytes) -> bool:
        data = b"\n".join(line[5:] for line in event.splitlines() if line.startswith(b"data:"))
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            return False
        if not isinstance(value, dict):
            return False
        usage = _from_usage(value.get("usage")) or _from_details(value.get("details"))
        if usage is None:
            return False
        self._usage = usage
        return value.get("choices") == []

    def usage(self, asked: int) -> Usage:
        """Every event counts as a token where the engine has not said how many there are."""
        return self._usage or estimate(asked, self.events)


def _from_usage(value: Any) -> Usage | None:
    if not isinstance(value, dict):
        return None
    return _counted(value.get("prompt_tokens"), value.get("completion_tokens", 0))


def _from_details(value: Any) -> Usage | None:
    """`StreamDetails` of TGI (router/src/lib.rs), which its streams have when the request says `details: true`."""
    if not isinstance(value, dict):
        return None
    return _counted(value.get("input_length"), value.get("generated_tokens"))


def _counted(prompt: Any, completion: Any) -> Usage | None:
    if (
        type(prompt) is int
        and type(completion) is int
        and 0 <= prompt < _BEYOND_BELIEF
        and 0 <= completion < _BEYOND_BELIEF
    ):
        return Usage(prompt, completion)
    return None
