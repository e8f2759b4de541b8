"""A ServingRuntime: how an engine is started, probed and stopped. Adding an engine is a YAML file, no code."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from llmop.domain import placeholders


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Warmup:
    """The real one-token generation that proves a replica before it gets traffic."""

    path: str
    body: Mapping[str, Any]
    method: str = "POST"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """The names of the engine's own metrics, in Prometheus' text form at `path`; "" where it has none.

    `kv_cache_usage` is one gauge from 0 to 1, or two like `used / total`.
    """

    path: str
    queue_depth: str = ""
    running: str = ""
    kv_cache_usage: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """`command`, `args`, `env`, `binds` and the body of `warmup` are templates over a closed set of names (see `placeholders`)."""

    name: str
    engine: str
    command: tuple[str, ...]
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    image: str = ""
    container: str = "none"  # apptainer | none | optional (in Apptainer where there is an image)
    gpu: str = "none"  # nvidia | amd | none
    ports: tuple[str, ...] = ("http",)  # one free port per name, unique per replica
    binds: tuple[str, ...] = ()  # templates of paths that the container sees read-only, at the same place
    protocols: tuple[str, ...] = ("openai",)  # openai, tgi, embeddings
    model_required: bool = True
    model_formats: tuple[str, ...] = ()  # gguf, directory; empty = any
    served_name: str = ""  # what the engine wants to read as "model"; "" = the name that clients send
    usage_in_stream: bool = False  # its streams say what they used when asked
    max_in_flight: int = 0  # requests that it takes at a time; 0 = as many as come
    api_key_env: str = ""  # for engines that take the key from this variable only
    refused_args: Mapping[str, str] = dataclasses.field(default_factory=dict)  # flag -> why, for people
    health_path: str = "/health"
    health_timeout_s: int = 5
    warmup: Warmup | None = None
    metrics: Metrics | None = None  # None: the engine is not asked how busy it is
    stop_signal: str = "TERM"
    stop_timeout_s: int = 30

    def uses(self, placeholder: str) -> bool:
        """Whether the engine is told the value at all: what it is not told it cannot do."""
        texts = (*self.command, *self.args, *self.env.values())
        return any(placeholder in placeholders.names(text) for text in texts)

    def flags_with(self, names: Collection[str]) -> frozenset[str]:
        """The flags of the command whose value holds one of these placeholders: `--port={port}`, or `--port` before `{port}`."""
        found = set()
        flag = ""
        for text in (*self.command, *self.args):
            if text.startswith("-"):
                flag = text.partition("=")[0]
            if flag and placeholders.names(text) & set(names):
                found.add(flag)
            if not text.startswith("-"):
                flag = ""
        return frozenset(found)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EngineCommand:
    """What the agent needs to start one engine: the `engine` part of replica.json, still with the agent's placeholders.

    The agent fills `{port}`, `{port:NAME}`, `{host}`, `{scratch}`, `{sockets}` and `{apiKeyFile}` on the node.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    env_files: tuple[str, ...]
    cwd: str
    ports: tuple[str, ...]
    requires: tuple[str, ...]  # absolute paths that must exist on the node
    container: Mapping[str, Any]
    health: Mapping[str, Any]
    warmup: Mapping[str, Any] | None
    metrics: Mapping[str, str] | None
    startup_timeout_s: int
    max_restarts: int
    stop: Mapping[str, Any]
    api_key_env: str
