"""ServingRuntime: how an engine is started, probed and stopped."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from llmop.domain import placeholders
from llmop.manifest.schema_v1alpha1 import fields

_PORT = re.compile(r"[a-z][a-z0-9-]{0,30}", re.ASCII)
# Names of metrics as in Prometheus' data model (prometheus.io/docs/concepts/data_model).
_METRIC = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]{0,199}", re.ASCII)
_SHARE = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]{0,199}( / [A-Za-z_:][A-Za-z0-9_:]{0,199})?", re.ASCII)

_KNOWN = placeholders.OURS | placeholders.AGENT
_BIND_NAMES = frozenset({"sharedDir"})
_BODY_NAMES = frozenset({"servedName"})


def _openai() -> list[Literal["openai", "tgi", "embeddings"]]:
    return ["openai"]


class Health(fields.Fields):
    """The check that says whether the engine lives."""

    path: fields.HttpPath = Field(
        default="/health", description="Path that answers 200 when the engine is healthy."
    )
    timeout: fields.PositiveDuration = Field(default="5s", description="How long an answer may take.")


class Warmup(fields.Fields):
    """The real one-token generation that proves a replica before it gets traffic."""

    method: Literal["GET", "POST"] = Field(default="POST", description="HTTP method.")
    path: fields.HttpPath = Field(description="Path of a generation.")
    body: dict[str, Any] = Field(
        description="JSON body. `{servedName}` in its texts is filled in; `{{` and `}}` are braces."
    )


class RuntimeProbes(fields.Fields):
    """How the agent asks the engine on the node."""

    health: Health = Field(
        default_factory=Health, description="The check that says whether the engine lives."
    )
    warmup: Warmup | None = Field(
        default=None, description="A real generation that must succeed before the replica is ready."
    )


_Gauge = Annotated[
    str, fields.matching(_METRIC, "the name of a metric: letters, digits, _ and :, no digit first")
]


class Metrics(fields.Fields):
    """Where the engine says how busy it is, in Prometheus' text form. Of several series of a name the largest counts."""

    unsupported: ClassVar[frozenset[str]] = frozenset({"tokensTotal"})

    path: fields.HttpPath = Field(default="/metrics", description="Path of the metrics, at the port `http`.")
    queue_depth: _Gauge | None = Field(
        default=None, description="The gauge of requests that wait in the engine."
    )
    running: _Gauge | None = Field(
        default=None, description="The gauge of requests that the engine works on."
    )
    kv_cache_usage: (
        Annotated[str, fields.matching(_SHARE, "the name of a metric, or two of them like used / total")]
        | None
    ) = Field(
        default=None,
        description="The gauge of how full the KV cache is, 1 = full; or two gauges, like `used / total`.",
    )

    @model_validator(mode="after")
    def _name_one(self) -> Self:
        if not (self.queue_depth or self.running or self.kv_cache_usage):
            raise fields.invalid_below(
                ("", "names no metric; write queueDepth, running or kvCacheUsage, or remove it")
            )
        return self


class Stop(fields.Fields):
    """How the engine is ended once its last request is done."""

    signal: Literal["TERM", "INT"] = Field(
        default="TERM", description="Signal to the engine's first process only."
    )
    timeout: fields.PositiveDuration = Field(default="30s", description="Time until it is killed.")


class ServingRuntimeSpec(fields.Fields):
    """How an engine is started. Commands are lists of arguments, never shell text; they may hold placeholders."""

    unsupported: ClassVar[frozenset[str]] = frozenset({"multiNode", "unique", "bodyEdits"})

    engine: fields.Name = Field(description="Which engine it is, for people.")
    image: fields.Image | None = Field(
        default=None,
        description="The image that holds the engine: `docker://registry/name:tag`, `oras://registry/name:tag`, or the absolute path of "
        "a .sif; deployments may name another.",
    )
    command: list[str] = Field(
        min_length=1,
        max_length=1000,
        description="The engine's command. Placeholders: {model} {servedName} {tensorParallel} {startupTimeout} {stopTimeout} "
        "{pipelineParallel} {maxTokens} {python} {sharedDir} {port} {port:NAME} {host} {scratch} {sockets} {apiKeyFile}; `{{` and "
        "`}}` are braces. An item with {maxTokens} is left out where the deployment sets no model.maxTokens. An engine that is "
        "not told {tensorParallel}, {pipelineParallel} or {maxTokens} cannot do it, and deployments that ask for it are refused.",
    )
    args: list[str] | None = Field(
        default=None, max_length=1000, description="More arguments, with the same placeholders."
    )
    env: fields.Env | None = Field(
        default=None, description="Environment variables of the engine, with the same placeholders."
    )
    ports: list[Annotated[str, fields.matching(_PORT, "a port's name: lower-case letters, digits and -")]] = (
        Field(
            default_factory=lambda: ["http"],
            max_length=16,
            description="Ports the engine needs, by name; each replica gets free ones. `http` is where requests go.",
        )
    )
    protocols: list[Literal["openai", "tgi", "embeddings"]] = Field(
        default_factory=_openai,
        min_length=1,
        description="HTTP dialects that the engine speaks; embeddings: only /v1/embeddings of the dialect openai.",
    )
    probes: RuntimeProbes = Field(
        default_factory=RuntimeProbes, description="How the agent asks the engine on the node."
    )
    metrics: Metrics | None = Field(
        default=None, description="Where the engine says how busy it is. Left out: it is not asked."
    )
    stop: Stop = Field(
        default_factory=Stop, description="How the engine is ended once its last request is done."
    )
    model_required: bool = Field(default=True, description="Whether a deployment has to name a model's uri.")
    supported_model_formats: list[Literal["gguf", "directory"]] | None = Field(
        default=None, description="What model.uri may point to: a .gguf file, a directory. Empty: anything."
    )
    served_name: str | None = Field(
        default=None,
        max_length=253,
        description='What the engine wants to read as "model"; empty: the name that clients send.',
    )
    usage_in_stream: bool = Field(
        default=False,
        description="Whether a stream of the OpenAI dialect ends with its usage when `stream_options.include_usage` asks for it: the "
        "gateway then asks for clients that do not.",
    )
    max_in_flight: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Requests that a gateway gives to the engine at a time; the others wait there. Best is what the engine takes before it "
        "refuses, or somewhat more than it serves at the same time. Left out: as many as come.",
    )
    api_key_env: fields.EnvName | None = Field(
        default=None,
        description="Environment variable for engines that take their key from there only; the agent sets it.",
    )
    refused_args: dict[fields.Flag, fields.OneLine] | None = Field(
        default=None,
        max_length=100,
        description="Flags that deployments may not give in args, and why, in words that follow the flag. Flags of the command that "
        "say where and what the engine serves are refused anyway.",
    )
    gpu: Literal["nvidia", "amd", "none"] = Field(
        default="none", description="Whose GPUs the container gets to see."
    )
    container: Literal["apptainer", "none", "optional"] = Field(
        default="none",
        description="apptainer: always in a container; none: never; optional: in one where an image is given.",
    )
    binds: list[str] | None = Field(
        default=None,
        max_length=100,
        description="Absolute paths that the container sees read-only at the same place, besides the model. Placeholder: {sharedDir}.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = [*self._port_problems(), *self._template_problems(), *self._bind_problems()]
        if problems:
            raise fields.invalid_below(*problems)
        return self

    def _port_problems(self) -> Iterator[tuple[str, str]]:
        if "http" not in self.ports or len(set(self.ports)) != len(self.ports):
            yield "ports", f"{self.ports!r} must hold http, and each name once"

    def _template_problems(self) -> Iterator[tuple[str, str]]:
        texts = {f"command[{index}]": text for index, text in enumerate(self.command)}
        texts |= {f"args[{index}]": text for index, text in enumerate(self.args or ())}
        texts |= {f"env.{name}": text for name, text in (self.env or {}).items()}
        for path, text in texts.items():
            if problem := placeholders.problem(text, known=_KNOWN, ports=tuple(self.ports)):
                yield path, problem
        if not any("{port}" in text or "{port:http}" in text for text in texts.values()):
            yield "command", "holds no {port}, nor do args and env: the engine would not know where to listen"
        for text in _strings(self.probes.warmup.body) if self.probes.warmup is not None else ():
            if problem := placeholders.problem(text, known=_BODY_NAMES):
                yield "probes.warmup.body", problem

    def _bind_problems(self) -> Iterator[tuple[str, str]]:
        if self.binds and self.container == "none":
            yield "binds", "is for containers, and container is 'none'; remove one of the two"
        for index, bind in enumerate(self.binds or ()):
            path = f"binds[{index}]"
            mounted = bind.replace("{sharedDir}", "/shared", 1) if bind.startswith("{sharedDir}") else bind
            if problem := placeholders.problem(bind, known=_BIND_NAMES) or fields.path_problem(mounted):
                yield path, problem
            elif any(character in mounted for character in ":,\\"):
                yield path, f"{bind!r} has one of : , \\ in it, which a container's bind path cannot have"


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return []
