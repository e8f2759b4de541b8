from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WatchEndpointsRequest(_message.Message):
    __slots__ = ("gateway",)
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    gateway: str
    def __init__(self, gateway: _Optional[str] = ...) -> None: ...

class Endpoint(_message.Message):
    __slots__ = ("replica", "uid", "host", "port", "api_key", "state", "deployment")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Endpoint.State]
        STATE_READY: _ClassVar[Endpoint.State]
        STATE_SUSPECT: _ClassVar[Endpoint.State]
        STATE_DRAINING: _ClassVar[Endpoint.State]
    STATE_UNSPECIFIED: Endpoint.State
    STATE_READY: Endpoint.State
    STATE_SUSPECT: Endpoint.State
    STATE_DRAINING: Endpoint.State
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    API_KEY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    replica: str
    uid: str
    host: str
    port: int
    api_key: str
    state: Endpoint.State
    deployment: str
    def __init__(self, replica: _Optional[str] = ..., uid: _Optional[str] = ..., host: _Optional[str] = ..., port: _Optional[int] = ..., api_key: _Optional[str] = ..., state: _Optional[_Union[Endpoint.State, str]] = ..., deployment: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "deployment", "protocols", "created_at", "retry_attempts", "upstream_model", "usage_in_stream", "virtual")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOLS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    RETRY_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_MODEL_FIELD_NUMBER: _ClassVar[int]
    USAGE_IN_STREAM_FIELD_NUMBER: _ClassVar[int]
    VIRTUAL_FIELD_NUMBER: _ClassVar[int]
    name: str
    deployment: str
    protocols: _containers.RepeatedScalarFieldContainer[str]
    created_at: int
    retry_attempts: int
    upstream_model: str
    usage_in_stream: bool
    virtual: bool
    def __init__(self, name: _Optional[str] = ..., deployment: _Optional[str] = ..., protocols: _Optional[_Iterable[str]] = ..., created_at: _Optional[int] = ..., retry_attempts: _Optional[int] = ..., upstream_model: _Optional[str] = ..., usage_in_stream: _Optional[bool] = ..., virtual: _Optional[bool] = ...) -> None: ...

class EndpointTable(_message.Message):
    __slots__ = ("version", "installation", "endpoints", "models")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTALLATION_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    version: int
    installation: str
    endpoints: _containers.RepeatedCompositeFieldContainer[Endpoint]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, version: _Optional[int] = ..., installation: _Optional[str] = ..., endpoints: _Optional[_Iterable[_Union[Endpoint, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("gateway", "table_version")
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    TABLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    gateway: str
    table_version: int
    def __init__(self, gateway: _Optional[str] = ..., table_version: _Optional[int] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("period_ms",)
    PERIOD_MS_FIELD_NUMBER: _ClassVar[int]
    period_ms: int
    def __init__(self, period_ms: _Optional[int] = ...) -> None: ...
