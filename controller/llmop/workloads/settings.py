"""What a workloads process is told."""

import dataclasses
from collections.abc import Callable, Set
from pathlib import Path

from llmop.workloads.quota import Quota


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WorkloadsSettings:
    """`directory` is private and holds the database and the files; `socket` is where the gateway reaches us. `gateway` is the gateway's
    own address (`http://host:port`, or `unix:/path`), and `key` what rows of batches are asked under there, `concurrency` of them at once per
    owner and model. `keep_s` is how long batches that have ended are kept, with their files, in seconds, and
    `keep_gone_s` how long what belongs to a key is kept after its APIKey is gone; 0 = for ever.
    `in_file` gives the owners whose keys the gateway's file has, and raises OSError and NeedsUser.
    `controller` is the gRPC target of the control API, which tells which tribunals and assistants there are. `vectors` is the address of
    the Postgres database that vector stores lie in, "" = `directory`; there their vectors may take `vector_memory` bytes of memory.
    `quota` holds for each key.
    """

    directory: Path
    socket: Path
    gateway: str
    controller: str
    key: str
    concurrency: int
    keep_s: float
    keep_gone_s: float
    in_file: Callable[[], Set[str]]
    quota: Quota
    vectors: str
    vector_memory: int
