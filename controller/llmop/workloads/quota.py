"""What one key may keep here. Pure."""

from typing import NamedTuple

from llmop.workloads.refusals import Refused


class Usage(NamedTuple):
    """`files` are those that were uploaded, `bytes` of all."""

    files: int
    bytes: int


class Quota(NamedTuple):
    """`files` is how many may be uploaded, `bytes` what all files and the passages in vector stores may take together."""

    files: int
    bytes: int

    @property
    def too_much(self) -> str:
        return f"the files and vector stores of this key would take more than {self.bytes} bytes: delete some"

    def check(self, usage: Usage, more: int, files: int = 0) -> None:
        """Whether `more` bytes, and `files` of them, may be added. Raises Refused."""
        if usage.files + files > self.files:
            message = f"this key has {usage.files} files, and may have {self.files}: delete some"
            raise Refused(403, "quota_exceeded", message, "file")
        if usage.bytes + more > self.bytes:
            raise Refused(403, "quota_exceeded", self.too_much, "file")
