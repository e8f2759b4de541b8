"""A file that is being uploaded: multipart/form-data, written to the disk as it comes."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from python_multipart import exceptions
from python_multipart.multipart import MultipartParser, parse_options_header

from llmop.workloads.refusals import Refused, invalid
from llmop.workloads.shelf import Draft

FILE_LIMIT = 512 * 1024 * 1024  # bytes, as OpenAI has it
_FIELD_LIMIT = 4096
_MOST_FIELDS = 20


class Upload:
    """Reads a form with one part `file`, whose content goes to `draft`, and fields beside it. What the parser calls has no await in it."""

    def __init__(self, draft: Draft) -> None:
        self.filename = ""
        self.fields: dict[str, str] = {}
        self._draft = draft
        self._has_file = False
        self._ended = False
        self._header_name = b""
        self._header_value = b""
        self._disposition: Mapping[bytes, bytes] = {}
        self._name = ""
        self._value = b""

    async def read(self, content_type: str, pieces: AsyncIterator[bytes]) -> None:
        """Raises Refused, and OSError where the disk does not take it."""
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise Refused(415, "invalid_content_type", "send the file as multipart/form-data")
        parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._begin,
                "on_header_field": self._field,
                "on_header_value": self._more_value,
                "on_header_end": self._header,
                "on_headers_finished": self._headers_done,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._all,
            },
        )
        try:
            async for piece in pieces:
                await asyncio.to_thread(parser.write, piece)
        except exceptions.FormParserError as error:
            raise Refused(400, "invalid_form", f"the form cannot be read: {error}") from error
        if not self._ended:
            raise Refused(400, "invalid_form", "the form ends too early")
        if not self._has_file:
            raise invalid("file", "is missing: it holds the content")

    def _begin(self) -> None:
        self._disposition = {}
        self._header_name = self._header_value = self._value = b""

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _more_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]  # the parser bounds it

    def _header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            _, self._disposition = parse_options_header(self._header_value)
        self._header_name = self._header_value = b""

    def _headers_done(self) -> None:
        self._name = self._disposition.get(b"name", b"").decode("utf-8", "replace")
        if self._name == "file":
            if self._has_file:
                raise invalid("file", "comes twice: upload one file at a time")
            self._has_file = True
            self.filename = self._disposition.get(b"filename", b"").decode("utf-8", "replace")[:255]
        elif len(self.fields) >= _MOST_FIELDS:
            raise Refused(400, "invalid_form", f"the form has more than {_MOST_FIELDS} fields")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file":
            if self._draft.size + end - start > FILE_LIMIT:
                raise Refused(
                    413, "file_too_large", f"the file is larger than {FILE_LIMIT} bytes: split it", "file"
                )
            self._draft.write(data[start:end])
        elif len(self._value) + end - start > _FIELD_LIMIT:
            raise invalid(self._name[:100], f"is longer than {_FIELD_LIMIT} bytes")
        else:
            self._value += data[start:end]

    def _end(self) -> None:
        if self._name != "file":
            self.fields[self._name] = self._value.decode("utf-8", "replace")

    def _all(self) -> None:
        self._ended = True
