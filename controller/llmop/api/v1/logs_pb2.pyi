from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TailRequest(_message.Message):
    __slots__ = ("namespace", "replica", "source", "lines", "follow", "since", "offset", "previous")
    class Source(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SOURCE_UNSPECIFIED: _ClassVar[TailRequest.Source]
        SOURCE_ENGINE: _ClassVar[TailRequest.Source]
        SOURCE_JOB: _ClassVar[TailRequest.Source]
    SOURCE_UNSPECIFIED: TailRequest.Source
    SOURCE_ENGINE: TailRequest.Source
    SOURCE_JOB: TailRequest.Source
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    replica: str
    source: TailRequest.Source
    lines: int
    follow: bool
    since: float
    offset: int
    previous: bool
    def __init__(self, namespace: _Optional[str] = ..., replica: _Optional[str] = ..., source: _Optional[_Union[TailRequest.Source, str]] = ..., lines: _Optional[int] = ..., follow: _Optional[bool] = ..., since: _Optional[float] = ..., offset: _Optional[int] = ..., previous: _Optional[bool] = ...) -> None: ...

class TailResponse(_message.Message):
    __slots__ = ("data", "offset")
    DATA_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    offset: int
    def __init__(self, data: _Optional[bytes] = ..., offset: _Optional[int] = ...) -> None: ...
