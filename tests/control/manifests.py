"""The smallest manifests of each kind."""

from typing import Any


def document(kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "llmop/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, **metadata},
        "spec": spec,
    }


def cluster(name: str = "default", shared_dir: str = "/shared/llmop") -> dict[str, Any]:
    return document("Cluster", name, {"driver": "local", "sharedDir": shared_dir})


def runtime(name: str = "simulator") -> dict[str, Any]:
    return document(
        "ServingRuntime",
        name,
        {"engine": name, "command": ["engine", "--port", "{port}"], "modelRequired": False},
    )


def profile(name: str = "cpu", **spec: Any) -> dict[str, Any]:
    return document("ResourceProfile", name, {"cluster": "default", **spec})


def deployment(name: str = "chat", namespace: str | None = None, **spec: Any) -> dict[str, Any]:
    metadata = {"namespace": namespace} if namespace else {}
    return document(
        "ModelDeployment",
        name,
        {"model": {"name": name}, "runtime": "simulator", "resourceProfile": "cpu", **spec},
        **metadata,
    )
