import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from llmop.api.v1 import resources_pb2 as _resources_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AutoscaleRequest(_message.Message):
    __slots__ = ("namespace", "name", "min_replicas", "max_replicas", "target", "off", "dry_run")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MIN_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    MAX_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    OFF_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    min_replicas: int
    max_replicas: int
    target: int
    off: bool
    dry_run: bool
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., min_replicas: _Optional[int] = ..., max_replicas: _Optional[int] = ..., target: _Optional[int] = ..., off: _Optional[bool] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class AutoscaleResponse(_message.Message):
    __slots__ = ("object",)
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    object: _resources_pb2.Object
    def __init__(self, object: _Optional[_Union[_resources_pb2.Object, _Mapping]] = ...) -> None: ...

class ScalingStatusRequest(_message.Message):
    __slots__ = ("namespace", "name")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class ScalingStatusResponse(_message.Message):
    __slots__ = ("object", "scaling", "engines")
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    SCALING_FIELD_NUMBER: _ClassVar[int]
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    object: _resources_pb2.Object
    scaling: Scaling
    engines: _containers.RepeatedCompositeFieldContainer[EngineLoad]
    def __init__(self, object: _Optional[_Union[_resources_pb2.Object, _Mapping]] = ..., scaling: _Optional[_Union[Scaling, _Mapping]] = ..., engines: _Optional[_Iterable[_Union[EngineLoad, _Mapping]]] = ...) -> None: ...

class EngineLoad(_message.Message):
    __slots__ = ("replica", "queued", "running", "kv_cache_usage", "age_s")
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_USAGE_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    replica: str
    queued: int
    running: int
    kv_cache_usage: float
    age_s: float
    def __init__(self, replica: _Optional[str] = ..., queued: _Optional[int] = ..., running: _Optional[int] = ..., kv_cache_usage: _Optional[float] = ..., age_s: _Optional[float] = ...) -> None: ...

class Scaling(_message.Message):
    __slots__ = ("desired", "recommended", "reason", "message", "known", "panic", "metrics", "ready", "coming", "lead_s")
    DESIRED_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    PANIC_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    COMING_FIELD_NUMBER: _ClassVar[int]
    LEAD_S_FIELD_NUMBER: _ClassVar[int]
    desired: int
    recommended: int
    reason: str
    message: str
    known: bool
    panic: bool
    metrics: _containers.RepeatedCompositeFieldContainer[ScalingMetric]
    ready: int
    coming: int
    lead_s: float
    def __init__(self, desired: _Optional[int] = ..., recommended: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., known: _Optional[bool] = ..., panic: _Optional[bool] = ..., metrics: _Optional[_Iterable[_Union[ScalingMetric, _Mapping]]] = ..., ready: _Optional[int] = ..., coming: _Optional[int] = ..., lead_s: _Optional[float] = ...) -> None: ...

class ScalingMetric(_message.Message):
    __slots__ = ("type", "target", "average", "peak", "forecast", "replicas")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    AVERAGE_FIELD_NUMBER: _ClassVar[int]
    PEAK_FIELD_NUMBER: _ClassVar[int]
    FORECAST_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    type: str
    target: int
    average: float
    peak: float
    forecast: float
    replicas: int
    def __init__(self, type: _Optional[str] = ..., target: _Optional[int] = ..., average: _Optional[float] = ..., peak: _Optional[float] = ..., forecast: _Optional[float] = ..., replicas: _Optional[int] = ...) -> None: ...

class ScaleRequest(_message.Message):
    __slots__ = ("namespace", "name", "replicas", "current_replicas", "resource_version", "dry_run")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    CURRENT_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_VERSION_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    replicas: int
    current_replicas: int
    resource_version: int
    dry_run: bool
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., replicas: _Optional[int] = ..., current_replicas: _Optional[int] = ..., resource_version: _Optional[int] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class ScaleResponse(_message.Message):
    __slots__ = ("object", "previous_replicas")
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    object: _resources_pb2.Object
    previous_replicas: int
    def __init__(self, object: _Optional[_Union[_resources_pb2.Object, _Mapping]] = ..., previous_replicas: _Optional[int] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ("namespace", "name", "revision")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    revision: int
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("state", "message", "object")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[StatusResponse.State]
        STATE_COMPLETE: _ClassVar[StatusResponse.State]
        STATE_WAITING: _ClassVar[StatusResponse.State]
        STATE_STUCK: _ClassVar[StatusResponse.State]
    STATE_UNSPECIFIED: StatusResponse.State
    STATE_COMPLETE: StatusResponse.State
    STATE_WAITING: StatusResponse.State
    STATE_STUCK: StatusResponse.State
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    state: StatusResponse.State
    message: str
    object: _resources_pb2.Object
    def __init__(self, state: _Optional[_Union[StatusResponse.State, str]] = ..., message: _Optional[str] = ..., object: _Optional[_Union[_resources_pb2.Object, _Mapping]] = ...) -> None: ...

class HistoryRequest(_message.Message):
    __slots__ = ("namespace", "name")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class RolloutRevision(_message.Message):
    __slots__ = ("number", "name", "creation_time", "change_cause", "template_json")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CREATION_TIME_FIELD_NUMBER: _ClassVar[int]
    CHANGE_CAUSE_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_JSON_FIELD_NUMBER: _ClassVar[int]
    number: int
    name: str
    creation_time: _timestamp_pb2.Timestamp
    change_cause: str
    template_json: str
    def __init__(self, number: _Optional[int] = ..., name: _Optional[str] = ..., creation_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., change_cause: _Optional[str] = ..., template_json: _Optional[str] = ...) -> None: ...

class HistoryResponse(_message.Message):
    __slots__ = ("revisions",)
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    revisions: _containers.RepeatedCompositeFieldContainer[RolloutRevision]
    def __init__(self, revisions: _Optional[_Iterable[_Union[RolloutRevision, _Mapping]]] = ...) -> None: ...

class UndoRequest(_message.Message):
    __slots__ = ("namespace", "name", "to_revision", "dry_run")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TO_REVISION_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    to_revision: int
    dry_run: bool
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., to_revision: _Optional[int] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class UndoResponse(_message.Message):
    __slots__ = ("object", "revision", "changed_paths")
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGED_PATHS_FIELD_NUMBER: _ClassVar[int]
    object: _resources_pb2.Object
    revision: int
    changed_paths: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, object: _Optional[_Union[_resources_pb2.Object, _Mapping]] = ..., revision: _Optional[int] = ..., changed_paths: _Optional[_Iterable[str]] = ...) -> None: ...

class RestartRequest(_message.Message):
    __slots__ = ("namespace", "name", "dry_run")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    dry_run: bool
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class RestartResponse(_message.Message):
    __slots__ = ("object",)
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    object: _resources_pb2.Object
    def __init__(self, object: _Optional[_Union[_resources_pb2.Object, _Mapping]] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("namespace", "name", "dry_run")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    dry_run: bool
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class PauseResponse(_message.Message):
    __slots__ = ("object",)
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    object: _resources_pb2.Object
    def __init__(self, object: _Optional[_Union[_resources_pb2.Object, _Mapping]] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("namespace", "name", "dry_run")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    dry_run: bool
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class ResumeResponse(_message.Message):
    __slots__ = ("object",)
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    object: _resources_pb2.Object
    def __init__(self, object: _Optional[_Union[_resources_pb2.Object, _Mapping]] = ...) -> None: ...
