from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Artifact(_message.Message):
    __slots__ = ("cluster", "kind", "reference", "digest", "path", "size_bytes", "staged_at", "used_by", "unfinished")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    STAGED_AT_FIELD_NUMBER: _ClassVar[int]
    USED_BY_FIELD_NUMBER: _ClassVar[int]
    UNFINISHED_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    kind: str
    reference: str
    digest: str
    path: str
    size_bytes: int
    staged_at: str
    used_by: _containers.RepeatedScalarFieldContainer[str]
    unfinished: bool
    def __init__(self, cluster: _Optional[str] = ..., kind: _Optional[str] = ..., reference: _Optional[str] = ..., digest: _Optional[str] = ..., path: _Optional[str] = ..., size_bytes: _Optional[int] = ..., staged_at: _Optional[str] = ..., used_by: _Optional[_Iterable[str]] = ..., unfinished: _Optional[bool] = ...) -> None: ...

class ListArtifactsRequest(_message.Message):
    __slots__ = ("cluster",)
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    def __init__(self, cluster: _Optional[str] = ...) -> None: ...

class ListArtifactsResponse(_message.Message):
    __slots__ = ("artifacts", "problems")
    ARTIFACTS_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    artifacts: _containers.RepeatedCompositeFieldContainer[Artifact]
    problems: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, artifacts: _Optional[_Iterable[_Union[Artifact, _Mapping]]] = ..., problems: _Optional[_Iterable[str]] = ...) -> None: ...

class PruneArtifactsRequest(_message.Message):
    __slots__ = ("cluster", "dry_run")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    dry_run: bool
    def __init__(self, cluster: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class PruneArtifactsResponse(_message.Message):
    __slots__ = ("removed", "problems")
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    removed: _containers.RepeatedCompositeFieldContainer[Artifact]
    problems: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, removed: _Optional[_Iterable[_Union[Artifact, _Mapping]]] = ..., problems: _Optional[_Iterable[str]] = ...) -> None: ...
