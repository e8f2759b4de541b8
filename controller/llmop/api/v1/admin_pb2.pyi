from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DiscoverRequest(_message.Message):
    __slots__ = ("cluster", "shared_dir")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    SHARED_DIR_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    shared_dir: str
    def __init__(self, cluster: _Optional[str] = ..., shared_dir: _Optional[str] = ...) -> None: ...

class DiscoverResponse(_message.Message):
    __slots__ = ("files",)
    FILES_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[ProposedFile]
    def __init__(self, files: _Optional[_Iterable[_Union[ProposedFile, _Mapping]]] = ...) -> None: ...

class ProposedFile(_message.Message):
    __slots__ = ("name", "text")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    name: str
    text: str
    def __init__(self, name: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class PreflightRequest(_message.Message):
    __slots__ = ("cluster", "namespace", "deployment", "manifests_json", "skip_node", "wait_seconds")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    MANIFESTS_JSON_FIELD_NUMBER: _ClassVar[int]
    SKIP_NODE_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    namespace: str
    deployment: str
    manifests_json: _containers.RepeatedScalarFieldContainer[str]
    skip_node: bool
    wait_seconds: int
    def __init__(self, cluster: _Optional[str] = ..., namespace: _Optional[str] = ..., deployment: _Optional[str] = ..., manifests_json: _Optional[_Iterable[str]] = ..., skip_node: _Optional[bool] = ..., wait_seconds: _Optional[int] = ...) -> None: ...

class PreflightResponse(_message.Message):
    __slots__ = ("check",)
    CHECK_FIELD_NUMBER: _ClassVar[int]
    check: Check
    def __init__(self, check: _Optional[_Union[Check, _Mapping]] = ...) -> None: ...

class DoctorRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DoctorResponse(_message.Message):
    __slots__ = ("checks",)
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    checks: _containers.RepeatedCompositeFieldContainer[Check]
    def __init__(self, checks: _Optional[_Iterable[_Union[Check, _Mapping]]] = ...) -> None: ...

class Check(_message.Message):
    __slots__ = ("subject", "name", "result", "message", "fix")
    class Result(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        RESULT_UNSPECIFIED: _ClassVar[Check.Result]
        RESULT_PASS: _ClassVar[Check.Result]
        RESULT_WARN: _ClassVar[Check.Result]
        RESULT_FAIL: _ClassVar[Check.Result]
    RESULT_UNSPECIFIED: Check.Result
    RESULT_PASS: Check.Result
    RESULT_WARN: Check.Result
    RESULT_FAIL: Check.Result
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIX_FIELD_NUMBER: _ClassVar[int]
    subject: str
    name: str
    result: Check.Result
    message: str
    fix: str
    def __init__(self, subject: _Optional[str] = ..., name: _Optional[str] = ..., result: _Optional[_Union[Check.Result, str]] = ..., message: _Optional[str] = ..., fix: _Optional[str] = ...) -> None: ...
