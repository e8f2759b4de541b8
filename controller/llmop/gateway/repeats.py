"""Messages whose head was read before. Pure.

On one connection heads mostly differ in nothing but the length of the body. What the parser has accepted with one number it accepts
with another, so a message that came in one piece and repeats the last head need not go through the parser again.
"""

import re

_LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]{1,15})\r\n", re.IGNORECASE)
_LONGEST_NUMBER = 15


class Shape:
    """A head up to the number in its Content-Length and from there on. The parser accepts one such line in a head, no more."""

    __slots__ = ("_after", "_before", "_head", "_size")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after
        self._head = b""  # of the last message, and the size of all of that
        self._size = -1

    def body(self, data: bytes) -> int:
        """Where the body begins, if `data` is one whole message with a head like this; otherwise -1."""
        if len(data) == self._size and data.startswith(self._head):
            return len(self._head)
        before = self._before
        if not data.startswith(before):
            return -1
        end = data.find(b"\r", len(before))
        number = data[len(before) : end]
        if not number.isdigit() or len(number) > _LONGEST_NUMBER or not data.startswith(self._after, end):
            return -1
        start = end + len(self._after)
        if len(data) - start != int(number):
            return -1
        self._head, self._size = data[:start], len(data)
        return start


def shape_of(data: bytes) -> Shape | None:
    """The shape of a message that the parser took as a whole; None where its length is not said in the common way."""
    end = data.find(b"\r\n\r\n")
    number = _LENGTH.search(data, 0, end + 2)
    if end < 0 or number is None:
        return None
    return Shape(data[: number.start(1)], data[number.end(1) : end + 4])
