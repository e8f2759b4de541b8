"""Manifests with every field in them, and where the fields are."""

from collections.abc import Iterator
from typing import Any

from llmop.manifest import convert, explain

# Two manifests of a kind that differ in every field which both have. A kind may need several pairs.
PAIRS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "ModelDeployment",
        {
            "model": {"uri": "hf://models/a", "revision": "a", "name": "a", "maxTokens": 2},
            "runtime": "tgi",
            "image": "/a.sif",
            "args": ["--a"],
            "env": {"A": ""},
            "envFrom": [{"secretFile": "a.env"}],
            "resourceProfile": "a100:2",
            "parallelism": {"tensor": 1, "pipeline": 1},
            "resources": {"cpus": 1, "memory": "1Gi"},
            "cluster": "a",
            "slurm": {
                "partition": "a",
                "account": "a",
                "qos": "a",
                "gres": "gpu:a",
                "timeLimit": "3h",
                "timeMin": "1h",
                "constraint": "a",
                "reservation": "a",
                "exclude": ["a"],
                "nodelist": ["a"],
                "extraArgs": ["--exclusive"],
            },
            "replicas": 1,
            "rolloutStrategy": {"maxSurge": 1, "maxUnavailable": 1},
            "progressDeadline": "1h",
            "minReady": "1s",
            "revisionHistoryLimit": 1,
            "probes": {
                "startup": {"timeout": "1m"},
                "readiness": {"period": "1s"},
                "liveness": {"failureThreshold": 1},
            },
            "terminationGracePeriod": "1s",
            "paused": True,
            "restartedAt": "2026-01-01T00:00:00Z",
            "queue": {
                "maxInFlight": 1,
                "maxRequests": 1,
                "maxBytes": "1Mi",
                "requestTTL": "1s",
                "noEndpointRequestTTL": "1s",
            },
        },
        {
            "model": {"uri": "hf://models/b", "revision": "b", "name": "b", "maxTokens": 3},
            "runtime": "llamacpp",
            "image": "/b.sif",
            "args": ["--b"],
            "env": {"B": ""},
            "envFrom": [{"secretFile": "b.env"}],
            "resourceProfile": "h100:4",
            "parallelism": {"tensor": 2, "pipeline": 2},
            "resources": {"cpus": 2, "memory": "2Gi"},
            "cluster": "b",
            "slurm": {
                "partition": "b",
                "account": "b",
                "qos": "b",
                "gres": "gpu:b",
                "timeLimit": "4h",
                "timeMin": "2h",
                "constraint": "b",
                "reservation": "b",
                "exclude": ["b"],
                "nodelist": ["b"],
                "extraArgs": ["--reboot"],
            },
            "replicas": 2,
            "rolloutStrategy": {"maxSurge": 2, "maxUnavailable": 2},
            "progressDeadline": "2h",
            "minReady": "2s",
            "revisionHistoryLimit": 2,
            "probes": {
                "startup": {"timeout": "2m"},
                "readiness": {"period": "2s"},
                "liveness": {"failureThreshold": 2},
            },
            "terminationGracePeriod": "2s",
            "paused": False,
            "restartedAt": "2026-01-02T00:00:00Z",
            "queue": {
                "maxInFlight": 2,
                "maxRequests": 2,
                "maxBytes": "2Mi",
                "requestTTL": "2s",
                "noEndpointRequestTTL": "2s",
            },
        },
    ),
    (
        "ModelDeployment",
        {
            "runtime": "a",
            "scaling": {
                "minReplicas": 0,
                "maxReplicas": 5,
                "metrics": [{"type": "InFlight", "target": 1}],
                "stableWindow": "1m",
                "panicWindow": "7s",
                "panicThresholdPercent": 150,
                "tolerancePercent": 1,
                "scaleToZeroAfter": "1m",
                "behavior": {
                    "scaleUp": {
                        "stabilizationWindow": "1s",
                        "selectPolicy": "Max",
                        "policies": [{"type": "Replicas", "value": 1, "period": "1s"}],
                    },
                    "scaleDown": {
                        "stabilizationWindow": "1s",
                        "selectPolicy": "Max",
                        "policies": [{"type": "Replicas", "value": 1, "period": "1s"}],
                    },
                },
                "schedules": [
                    {
                        "name": "a",
                        "timezone": "UTC",
                        "start": "0 8 * * *",
                        "end": "0 9 * * *",
                        "minReplicas": 1,
                    }
                ],
            },
        },
        {
            "runtime": "b",
            "scaling": {
                "minReplicas": 1,
                "maxReplicas": 6,
                "metrics": [{"type": "QueueDepth", "target": 2}],
                "stableWindow": "2m",
                "panicWindow": "8s",
                "panicThresholdPercent": 250,
                "tolerancePercent": 2,
                "scaleToZeroAfter": "2m",
                "behavior": {
                    "scaleUp": {
                        "stabilizationWindow": "2s",
                        "selectPolicy": "Min",
                        "policies": [{"type": "Percent", "value": 2, "period": "2s"}],
                    },
                    "scaleDown": {
                        "stabilizationWindow": "2s",
                        "selectPolicy": "Disabled",
                        "policies": [{"type": "Percent", "value": 2, "period": "2s"}],
                    },
                },
                "schedules": [
                    {
                        "name": "b",
                        "timezone": "Europe/Berlin",
                        "start": "1 8 * * *",
                        "end": "1 9 * * *",
                        "minReplicas": 2,
                    }
                ],
            },
        },
    ),
    (
        "ServingRuntime",
        {
            "engine": "a",
            "image": "/a.sif",
            "command": ["a", "{port}"],
            "args": ["--a"],
            "env": {"A": ""},
            "ports": ["http"],
            "protocols": ["openai"],
            "probes": {
                "health": {"path": "/a", "timeout": "1s"},
                "warmup": {"method": "GET", "path": "/a", "body": {"a": None}},
            },
            "stop": {"signal": "TERM", "timeout": "1s"},
            "modelRequired": True,
            "supportedModelFormats": ["gguf"],
            "servedName": "a",
            "usageInStream": True,
            "maxInFlight": 1,
            "apiKeyEnv": "A",
            "gpu": "nvidia",
            "container": "apptainer",
            "binds": ["/a"],
            "refusedArgs": {"--a": "a"},
        },
        {
            "engine": "b",
            "image": "/b.sif",
            "command": ["b", "{port}"],
            "args": ["--b"],
            "env": {"B": ""},
            "ports": ["http", "b"],
            "protocols": ["tgi"],
            "probes": {
                "health": {"path": "/b", "timeout": "2s"},
                "warmup": {"method": "POST", "path": "/b", "body": {"b": None}},
            },
            "stop": {"signal": "INT", "timeout": "2s"},
            "modelRequired": False,
            "supportedModelFormats": ["directory"],
            "servedName": "b",
            "usageInStream": False,
            "maxInFlight": 2,
            "apiKeyEnv": "B",
            "gpu": "amd",
            "container": "optional",
            "binds": ["/b"],
            "refusedArgs": {"--b": "b"},
        },
    ),
    (
        "ResourceProfile",
        {
            "cluster": "a",
            "partition": "a",
            "account": "a",
            "qos": "a",
            "gres": "gpu:a",
            "constraint": "a",
            "cpusPerGPU": 1,
            "memoryPerGPU": "1Gi",
            "gpuVendor": "nvidia",
            "gpusPerNode": 1,
            "timeLimit": "3h",
            "timeMin": "1h",
            "maxReplicas": 1,
        },
        {
            "cluster": "b",
            "partition": "b",
            "account": "b",
            "qos": "b",
            "gres": "gpu:b",
            "constraint": "b",
            "cpusPerGPU": 2,
            "memoryPerGPU": "2Gi",
            "gpuVendor": "amd",
            "gpusPerNode": 2,
            "timeLimit": "4h",
            "timeMin": "2h",
            "maxReplicas": 2,
        },
    ),
    ("ResourceProfile", {"cpus": 1, "memory": "1Gi"}, {"cpus": 2, "memory": "2Gi"}),
    (
        "Cluster",
        {
            "driver": "slurm",
            "sharedDir": "/a",
            "python": "/a",
            "prelude": ["a"],
            "allowed": {
                "images": ["/a"],
                "modelRoots": ["/a"],
                "secretRoot": "/a",
                "args": ["--a"],
                "extraArgs": ["--a"],
            },
            "staging": {
                "where": "Login",
                "hub": "https://a",
                "insecureRegistries": ["a"],
                "tmpDir": "/a",
            },
            "submitRate": {"perSecond": 1.0, "burst": 1},
            "submitTimeout": "1s",
            "settleTime": "1s",
            "pollInterval": {"min": "1s", "max": "3s"},
            "orphanPolicy": "Report",
            "orphanGracePeriod": "1s",
        },
        {
            "driver": "local",
            "sharedDir": "/b",
            "python": "/b",
            "prelude": ["b"],
            "allowed": {
                "images": ["/b"],
                "modelRoots": ["/b"],
                "secretRoot": "/b",
                "args": ["--b"],
                "extraArgs": ["--b"],
            },
            "staging": {
                "where": "Login",
                "hub": "https://b",
                "insecureRegistries": ["b"],
                "tmpDir": "/b",
            },
            "submitRate": {"perSecond": 2.0, "burst": 2},
            "submitTimeout": "2s",
            "settleTime": "2s",
            "pollInterval": {"min": "2s", "max": "4s"},
            "orphanPolicy": "Cancel",
            "orphanGracePeriod": "2s",
        },
    ),
    (
        "Cluster",
        {
            "driver": "slurm",
            "sharedDir": "/a",
            "staging": {
                "where": "Job",
                "python": "/a",
                "partition": "a",
                "account": "a",
                "qos": "a",
                "cpus": 2,
                "memory": "1Gi",
                "timeLimit": "1h",
            },
        },
        {
            "driver": "slurm",
            "sharedDir": "/a",
            "staging": {
                "where": "Job",
                "python": "/b",
                "partition": "b",
                "account": "b",
                "qos": "b",
                "cpus": 3,
                "memory": "2Gi",
                "timeLimit": "2h",
            },
        },
    ),
    (
        "Cluster",
        {"driver": "slurm", "sharedDir": "/a", "staging": {"where": "Login"}},
        {"driver": "slurm", "sharedDir": "/a", "staging": {"where": "Job"}},
    ),
    (
        "APIKey",
        {
            "keyHash": "sha256:" + 64 * "a",
            "models": ["a"],
            "priority": "System",
            "limits": {"requestsPerMinute": 1, "tokensPerMinute": 1, "parallelRequests": 1},
            "shadow": True,
            "owner": "a",
            "expiresAt": "2026-01-01T00:00:00Z",
        },
        {
            "keyHash": "sha256:" + 64 * "b",
            "models": ["b"],
            "priority": "Bulk",
            "limits": {"requestsPerMinute": 2, "tokensPerMinute": 2, "parallelRequests": 2},
            "shadow": False,
            "owner": "b",
            "expiresAt": "2026-01-02T00:00:00Z",
        },
    ),
]
CONVERT: dict[str, Any] = {
    "APIKey": convert.client_key,
    "ModelDeployment": convert.deployment,
    "ServingRuntime": convert.runtime,
    "ResourceProfile": convert.profile,
    "Cluster": convert.site,
}


def leaves(options: tuple[explain.FieldHelp, ...]) -> Iterator[str]:
    for option in options:
        if option.children:
            yield from leaves(option.children)
        else:
            yield option.path


def at(spec: dict[str, Any], path: str) -> tuple[Any, str] | None:
    """The mapping that holds the field, and the field's name in it; None where it is not there."""
    *above, name = path.removeprefix("spec.").split(".")
    place: Any = spec
    for step in above:
        place = place.get(step.removesuffix("[]"))
        if place is None:
            return None
        if step.endswith("[]"):
            place = place[0]
    return (place, name) if name in place else None
