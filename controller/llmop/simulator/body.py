"""Reading a JSON body field by field, with the errors of axum's JSON extractor: plain text, not the JSON shape."""

from __future__ import annotations

import json
from typing import Any

from .errors import BadBody

_MOST_U32 = 2**32 - 1
_MOST_U64 = 2**64 - 1


class Fields:
    """One JSON object. A field that is absent or null takes the default; unknown fields are ignored, as by TGI.

    Every getter raises BadBody (422) that names the field, what came and what is expected.
    """

    __slots__ = ("_path", "_values")

    def __init__(self, values: dict[str, Any], path: str = "") -> None:
        self._values = values
        self._path = path

    def get(self, name: str) -> Any:
        """The value as it came, None where absent."""
        return self._values.get(name)

    def object(self, name: str) -> Fields:
        """A nested object; absent is empty."""
        value = self._values.get(name)
        if value is None:
            return Fields({}, f"{self._path}{name}.")
        if not isinstance(value, dict):
            raise self.mismatch(name, value, "an object")
        return Fields(value, f"{self._path}{name}.")

    def required_text(self, name: str) -> str:
        """A string that must be there."""
        value = self._values.get(name)
        if value is None:
            raise _mismatch(f"missing field `{self._path}{name}`")
        if not isinstance(value, str):
            raise self.mismatch(name, value, "a string")
        return value

    def text(self, name: str) -> str | None:
        """A string."""
        return None if self._values.get(name) is None else self.required_text(name)

    def flag(self, name: str) -> bool:
        """A boolean; absent is false."""
        value = self._values.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.mismatch(name, value, "a boolean")
        return value

    def number(self, name: str) -> float | None:
        """A finite number."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.mismatch(name, value, "f32")
        return value

    def whole(self, name: str, most: int = _MOST_U32) -> int | None:
        """A whole number from 0 to `most`."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise self.mismatch(name, value, "u64" if most == _MOST_U64 else "u32")
        return value

    def signed(self, name: str) -> int | None:
        """A whole number of 32 bits with a sign."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not -(2**31) <= value < 2**31:
            raise self.mismatch(name, value, "i32")
        return value

    def seed(self, name: str = "seed") -> int | None:
        """A whole number of 64 bits."""
        return self.whole(name, _MOST_U64)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings; absent is empty."""
        value = self._values.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self.mismatch(name, value, "a sequence of strings")
        return tuple(value)

    def mismatch(self, name: str, value: Any, wanted: str) -> BadBody:
        """The error for a field of the wrong type. The value is shown only as far as its type and 40 characters."""
        shown = json.dumps(value)
        if len(shown) > 40:
            shown = f"{shown[:40]}..."
        return _mismatch(f"{self._path}{name}: invalid type or value {shown}, expected {wanted}")


def read_json(content_type: str, body: bytes) -> Fields:
    """The body as an object. Raises BadBody: 415 wrong content type, 400 not JSON, 422 not an object."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise BadBody(415, "Expected request with `Content-Type: application/json`")
    try:
        values = _decode(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadBody(400, f"Failed to parse the request body as JSON: {error}") from error
    if not isinstance(values, dict):
        raise _mismatch("expected an object")
    return Fields(values)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_constant=_no_constant).decode


def _mismatch(text: str) -> BadBody:
    return BadBody(422, f"Failed to deserialize the JSON body into the target type: {text}")
