from llmop.api.v1 import resources_pb2 as _resources_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ScaleRequest(_message.Message):
    __slots__ = ("namespace", "name", "replicas", "current_replicas", "resource_version")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    CURRENT_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_VERSION_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    replicas: int
    current_replicas: int
    resource_version: int
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., replicas: _Optional[int] = ..., current_replicas: _Optional[int] = ..., resource_version: _Optional[int] = ...) -> None: ...

class ScaleResponse(_message.Message):
    __slots__ = ("object", "previous_replicas")
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    object: _resources_pb2.Object
    previous_replicas: int
    def __init__(self, object: _Optional[_Union[_resources_pb2.Object, _Mapping]] = ..., previous_replicas: _Optional[int] = ...) -> None: ...
