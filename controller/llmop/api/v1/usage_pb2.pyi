from llmop.api.v1 import gateway_pb2 as _gateway_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SumUsageRequest(_message.Message):
    __slots__ = ("by", "since", "until", "key", "model")
    class By(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        BY_UNSPECIFIED: _ClassVar[SumUsageRequest.By]
        BY_KEY: _ClassVar[SumUsageRequest.By]
        BY_MODEL: _ClassVar[SumUsageRequest.By]
        BY_HOUR: _ClassVar[SumUsageRequest.By]
    BY_UNSPECIFIED: SumUsageRequest.By
    BY_KEY: SumUsageRequest.By
    BY_MODEL: SumUsageRequest.By
    BY_HOUR: SumUsageRequest.By
    BY_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    by: _containers.RepeatedScalarFieldContainer[SumUsageRequest.By]
    since: int
    until: int
    key: str
    model: str
    def __init__(self, by: _Optional[_Iterable[_Union[SumUsageRequest.By, str]]] = ..., since: _Optional[int] = ..., until: _Optional[int] = ..., key: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class SumUsageResponse(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[_gateway_pb2.UsageRow]
    def __init__(self, rows: _Optional[_Iterable[_Union[_gateway_pb2.UsageRow, _Mapping]]] = ...) -> None: ...
