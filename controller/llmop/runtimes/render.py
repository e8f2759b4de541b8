"""A runtime and a template become the engine part of `replica.json` (docs/reference/agent-channel.md)."""

import posixpath
from collections.abc import Mapping
from typing import Any

from llmop.domain import placeholders, staging
from llmop.domain.deployment import Template
from llmop.domain.profile import Profile
from llmop.domain.runtime import EngineCommand, Runtime
from llmop.domain.site import Site

MAX_RESTARTS = 3  # of the engine inside one job; after that the job ends and the controller decides

_FILE = "file://"
_CONTAINER_PYTHON = "python3"  # the site's interpreter is not inside the image


def engine_command(runtime: Runtime, template: Template, profile: Profile, site: Site) -> EngineCommand:
    """What the agent needs to start one engine of `template`, for a combination that `manifest.references` found right.

    `template` names paths only: what comes from a registry or a hub was staged before (`domain.staging.located`).
    Our placeholders are filled, the agent's stay. Everything that comes from the user (the model's path and name, args, env) is
    escaped, so that it arrives verbatim, each value as one argument. Raises ValueError for a template with unknown placeholders.
    """
    image = staging.image_of(runtime, template)
    values = {
        "model": model_path(template),
        "servedName": template.model_name,
        "tensorParallel": str(template.tensor_parallel),
        "pipelineParallel": str(template.pipeline),
        "maxTokens": str(template.max_tokens),
        "startupTimeout": str(template.startup_timeout_s),
        "stopTimeout": str(runtime.stop_timeout_s),
        "python": _CONTAINER_PYTHON if image else site.python,
        "sharedDir": site.shared_dir,
    }
    binds = [_literal(text, values) for text in runtime.binds]
    argv = [_fill(text, values) for text in (*runtime.command, *runtime.args) if _is_said(text, template)]
    env = {name: _fill(text, values) for name, text in runtime.env.items() if _is_said(text, template)}
    env |= {name: placeholders.escape(text) for name, text in template.env.items()}
    return EngineCommand(
        argv=(*argv, *(placeholders.escape(argument) for argument in template.args)),
        env=env,
        env_files=tuple(posixpath.join(site.allowed.secret_root, path) for path in template.env_files),
        cwd="{scratch}",
        ports=runtime.ports,
        requires=tuple(path for path in (model_path(template), *binds) if path),
        container=_container(runtime, template, profile, site, image, binds),
        health={
            "path": runtime.health_path,
            "period": template.readiness_period_s,
            "timeout": runtime.health_timeout_s,
            "failureThreshold": template.liveness_failure_threshold,
        },
        warmup=None
        if runtime.warmup is None
        else {
            "method": runtime.warmup.method,
            "path": runtime.warmup.path,
            "body": _fill_json(runtime.warmup.body, {"servedName": served_name(runtime, template)}),
        },
        metrics=metrics(runtime),
        startup_timeout_s=template.startup_timeout_s,
        max_restarts=MAX_RESTARTS,
        stop={"signal": runtime.stop_signal, "timeout": runtime.stop_timeout_s},
        api_key_env=runtime.api_key_env,
    )


def metrics(runtime: Runtime) -> Mapping[str, str] | None:
    """Where the agent finds how busy the engine is; None where it is not asked."""
    if runtime.metrics is None:
        return None
    return {
        "path": runtime.metrics.path,
        "queueDepth": runtime.metrics.queue_depth,
        "running": runtime.metrics.running,
        "kvCacheUsage": runtime.metrics.kv_cache_usage,
    }


def served_name(runtime: Runtime, template: Template) -> str:
    """What the engine wants to read as "model" in a request."""
    return runtime.served_name or template.model_name


def model_path(template: Template) -> str:
    """The absolute path of the model on the nodes, "" without one."""
    return template.model_uri.removeprefix(_FILE)


def _container(
    runtime: Runtime, template: Template, profile: Profile, site: Site, image: str, binds: list[str]
) -> Mapping[str, Any]:
    if not image:
        return {"kind": "none"}
    model = model_path(template)
    mounted = [*binds, _root_of(model, site)] if model else binds
    return {
        "kind": "apptainer",
        "image": image,
        "gpu": _vendor(runtime, profile) if template.gpus else "none",
        "binds": [f"{path}:{path}:ro" for path in mounted],
    }


def _vendor(runtime: Runtime, profile: Profile) -> str:
    """The site knows its hardware; an engine that uses no GPU gets to see none wherever it runs."""
    return runtime.gpu if runtime.gpu == "none" else profile.gpu_vendor or runtime.gpu


def _root_of(path: str, site: Site) -> str:
    """What has to be mounted so that `path` can be read.

    Of staged weights their directory, because one file may be the first of several. Else the longest allowed root above it, for
    models that are links into it.
    """
    staged = f"{site.shared_dir}/models/"
    if path.startswith(staged):
        return staged + path.removeprefix(staged).partition("/")[0]
    roots = [root.rstrip("/") for root in site.allowed.model_roots or ()]
    above = [root for root in roots if root and (path == root or path.startswith(f"{root}/"))]
    return max(above, key=len, default=path)


def _is_said(text: str, template: Template) -> bool:
    """An item about a limit that the deployment leaves to the engine is left out."""
    return bool(template.max_tokens) or "maxTokens" not in placeholders.names(text)


def _fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with our placeholders filled; the result is a template again, for the agent."""
    filled = []
    for part in placeholders.parse(text):
        if isinstance(part, str):
            filled.append(placeholders.escape(part))
        elif part.name in values:
            filled.append(placeholders.escape(values[part.name]))
        elif part.name in placeholders.AGENT:
            filled.append(f"{{{part.name}:{part.argument}}}" if part.argument else f"{{{part.name}}}")
        else:
            raise ValueError(f"{text!r} has the placeholder {{{part.name}}}, which nobody fills")
    return "".join(filled)


def _literal(text: str, values: Mapping[str, str]) -> str:
    """`text` with our placeholders filled, as plain text."""
    filled = []
    for part in placeholders.parse(text):
        if isinstance(part, str):
            filled.append(part)
        elif part.name in values:
            filled.append(values[part.name])
        else:
            raise ValueError(f"{text!r} has the placeholder {{{part.name}}}, which is not filled here")
    return "".join(filled)


def _fill_json(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _literal(value, values)
    if isinstance(value, Mapping):
        return {key: _fill_json(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill_json(item, values) for item in value]
    return value
