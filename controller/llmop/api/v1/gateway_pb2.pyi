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
    __slots__ = ("name", "deployment", "protocols", "created_at", "retry_attempts", "upstream_model", "usage_in_stream", "max_in_flight", "queue", "next_replica", "virtual", "wakes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOLS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    RETRY_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_MODEL_FIELD_NUMBER: _ClassVar[int]
    USAGE_IN_STREAM_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    NEXT_REPLICA_FIELD_NUMBER: _ClassVar[int]
    VIRTUAL_FIELD_NUMBER: _ClassVar[int]
    WAKES_FIELD_NUMBER: _ClassVar[int]
    name: str
    deployment: str
    protocols: _containers.RepeatedScalarFieldContainer[str]
    created_at: int
    retry_attempts: int
    upstream_model: str
    usage_in_stream: bool
    max_in_flight: int
    queue: Queue
    next_replica: NextReplica
    virtual: bool
    wakes: bool
    def __init__(self, name: _Optional[str] = ..., deployment: _Optional[str] = ..., protocols: _Optional[_Iterable[str]] = ..., created_at: _Optional[int] = ..., retry_attempts: _Optional[int] = ..., upstream_model: _Optional[str] = ..., usage_in_stream: _Optional[bool] = ..., max_in_flight: _Optional[int] = ..., queue: _Optional[_Union[Queue, _Mapping]] = ..., next_replica: _Optional[_Union[NextReplica, _Mapping]] = ..., virtual: _Optional[bool] = ..., wakes: _Optional[bool] = ...) -> None: ...

class Queue(_message.Message):
    __slots__ = ("max_requests", "max_bytes", "request_ttl_s", "no_endpoint_request_ttl_s")
    MAX_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TTL_S_FIELD_NUMBER: _ClassVar[int]
    NO_ENDPOINT_REQUEST_TTL_S_FIELD_NUMBER: _ClassVar[int]
    max_requests: int
    max_bytes: int
    request_ttl_s: int
    no_endpoint_request_ttl_s: int
    def __init__(self, max_requests: _Optional[int] = ..., max_bytes: _Optional[int] = ..., request_ttl_s: _Optional[int] = ..., no_endpoint_request_ttl_s: _Optional[int] = ...) -> None: ...

class NextReplica(_message.Message):
    __slots__ = ("stage", "starts_at", "ready_at")
    class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STAGE_UNSPECIFIED: _ClassVar[NextReplica.Stage]
        STAGE_PENDING: _ClassVar[NextReplica.Stage]
        STAGE_LOADING: _ClassVar[NextReplica.Stage]
    STAGE_UNSPECIFIED: NextReplica.Stage
    STAGE_PENDING: NextReplica.Stage
    STAGE_LOADING: NextReplica.Stage
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STARTS_AT_FIELD_NUMBER: _ClassVar[int]
    READY_AT_FIELD_NUMBER: _ClassVar[int]
    stage: NextReplica.Stage
    starts_at: int
    ready_at: int
    def __init__(self, stage: _Optional[_Union[NextReplica.Stage, str]] = ..., starts_at: _Optional[int] = ..., ready_at: _Optional[int] = ...) -> None: ...

class ClientKey(_message.Message):
    __slots__ = ("name", "digest", "models", "priority", "expires_at", "requests_per_minute", "tokens_per_minute", "parallel_requests", "shadow", "operations")
    class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PRIORITY_UNSPECIFIED: _ClassVar[ClientKey.Priority]
        PRIORITY_SYSTEM: _ClassVar[ClientKey.Priority]
        PRIORITY_INTERACTIVE: _ClassVar[ClientKey.Priority]
        PRIORITY_DEFAULT: _ClassVar[ClientKey.Priority]
        PRIORITY_BULK: _ClassVar[ClientKey.Priority]
    PRIORITY_UNSPECIFIED: ClientKey.Priority
    PRIORITY_SYSTEM: ClientKey.Priority
    PRIORITY_INTERACTIVE: ClientKey.Priority
    PRIORITY_DEFAULT: ClientKey.Priority
    PRIORITY_BULK: ClientKey.Priority
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_PER_MINUTE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_MINUTE_FIELD_NUMBER: _ClassVar[int]
    PARALLEL_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: bytes
    models: _containers.RepeatedScalarFieldContainer[str]
    priority: ClientKey.Priority
    expires_at: int
    requests_per_minute: int
    tokens_per_minute: int
    parallel_requests: int
    shadow: bool
    operations: bool
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[bytes] = ..., models: _Optional[_Iterable[str]] = ..., priority: _Optional[_Union[ClientKey.Priority, str]] = ..., expires_at: _Optional[int] = ..., requests_per_minute: _Optional[int] = ..., tokens_per_minute: _Optional[int] = ..., parallel_requests: _Optional[int] = ..., shadow: _Optional[bool] = ..., operations: _Optional[bool] = ...) -> None: ...

class ClientKeys(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[ClientKey]
    def __init__(self, keys: _Optional[_Iterable[_Union[ClientKey, _Mapping]]] = ...) -> None: ...

class EndpointTable(_message.Message):
    __slots__ = ("version", "installation", "endpoints", "models", "keys")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTALLATION_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    version: int
    installation: str
    endpoints: _containers.RepeatedCompositeFieldContainer[Endpoint]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    keys: ClientKeys
    def __init__(self, version: _Optional[int] = ..., installation: _Optional[str] = ..., endpoints: _Optional[_Iterable[_Union[Endpoint, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., keys: _Optional[_Union[ClientKeys, _Mapping]] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("gateway", "table_version", "loads")
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    TABLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    LOADS_FIELD_NUMBER: _ClassVar[int]
    gateway: str
    table_version: int
    loads: _containers.RepeatedCompositeFieldContainer[DeploymentLoad]
    def __init__(self, gateway: _Optional[str] = ..., table_version: _Optional[int] = ..., loads: _Optional[_Iterable[_Union[DeploymentLoad, _Mapping]]] = ...) -> None: ...

class DeploymentLoad(_message.Message):
    __slots__ = ("deployment", "in_flight", "queued", "unserved", "generated_tokens")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    UNSERVED_FIELD_NUMBER: _ClassVar[int]
    GENERATED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    in_flight: int
    queued: int
    unserved: int
    generated_tokens: int
    def __init__(self, deployment: _Optional[str] = ..., in_flight: _Optional[int] = ..., queued: _Optional[int] = ..., unserved: _Optional[int] = ..., generated_tokens: _Optional[int] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("period_ms",)
    PERIOD_MS_FIELD_NUMBER: _ClassVar[int]
    period_ms: int
    def __init__(self, period_ms: _Optional[int] = ...) -> None: ...

class ReportUsageRequest(_message.Message):
    __slots__ = ("gateway", "spool", "number", "rows")
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    SPOOL_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    gateway: str
    spool: str
    number: int
    rows: _containers.RepeatedCompositeFieldContainer[UsageRow]
    def __init__(self, gateway: _Optional[str] = ..., spool: _Optional[str] = ..., number: _Optional[int] = ..., rows: _Optional[_Iterable[_Union[UsageRow, _Mapping]]] = ...) -> None: ...

class UsageRow(_message.Message):
    __slots__ = ("hour", "key", "model", "requests", "prompt_tokens", "completion_tokens", "estimated", "limited")
    HOUR_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    LIMITED_FIELD_NUMBER: _ClassVar[int]
    hour: int
    key: str
    model: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    estimated: int
    limited: int
    def __init__(self, hour: _Optional[int] = ..., key: _Optional[str] = ..., model: _Optional[str] = ..., requests: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., estimated: _Optional[int] = ..., limited: _Optional[int] = ...) -> None: ...

class ReportUsageResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OverviewRequest(_message.Message):
    __slots__ = ("gateway", "etag")
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    gateway: str
    etag: str
    def __init__(self, gateway: _Optional[str] = ..., etag: _Optional[str] = ...) -> None: ...

class OverviewResponse(_message.Message):
    __slots__ = ("overview_json", "etag", "now")
    OVERVIEW_JSON_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    overview_json: str
    etag: str
    now: int
    def __init__(self, overview_json: _Optional[str] = ..., etag: _Optional[str] = ..., now: _Optional[int] = ...) -> None: ...
