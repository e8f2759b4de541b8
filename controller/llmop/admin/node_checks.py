"""From the report of `agent/probe.py` to checks. Pure; the report comes from a file, so that nothing in it is trusted."""

from collections.abc import Iterable, Mapping
from typing import Any

from llmop.domain.checks import Check, failed, passed, warned

LEAST_PYTHON = (3, 6)
LEAST_FREE_MIB = 4096
_CUT = 300


def check(report: Mapping[str, Any], *, gpus: int, image: str, subject: str) -> Iterable[Check]:
    """`gpus` is how many were asked for, `image` what shall run ("" = nothing in a container)."""
    subject = f"{subject} {_text(report.get('host'))}".strip()
    yield _python(subject, _text(report.get("python")))
    yield from _shared(subject, _mapping(report.get("shared")))
    missing = [_text(each) for each in _list(report.get("missing"))]
    if missing:
        fix = "put it on a file system that the nodes mount, or correct the path"
        yield failed(subject, "Artifacts", f"not on this node: {', '.join(missing)}", fix)
    else:
        yield passed(subject, "Artifacts", "model and image are there")
    yield from _container(subject, report, image)
    yield _gpus(subject, _mapping(report.get("gpus")), gpus)
    yield from _controllers(subject, _list(report.get("controllers")))


def _python(subject: str, version: str) -> Check:
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if len(parts) == 2 and parts >= LEAST_PYTHON:
        return passed(subject, "Python", version)
    fix = "set spec.python of the Cluster to a Python 3.6 or newer, or load one in spec.prelude"
    return failed(subject, "Python", f"{version or 'unknown'} is older than 3.6", fix)


def _shared(subject: str, shared: Mapping[str, Any]) -> Iterable[Check]:
    problem, free_mib = _text(shared.get("problem")), _number(shared.get("freeMiB"))
    if problem:
        fix = "sharedDir must be the same directory on the controller's host and on all nodes, writable, with hard links"
        yield failed(subject, "SharedDirectory", problem, fix)
        return
    yield passed(subject, "SharedDirectory", "can be written, knows hard links")
    if free_mib < LEAST_FREE_MIB:
        yield warned(
            subject, "Space", f"{free_mib:.0f} MiB free in sharedDir", "make room for logs and images"
        )


def _container(subject: str, report: Mapping[str, Any], image: str) -> Iterable[Check]:
    container, tried = _mapping(report.get("container")), _mapping(report.get("image"))
    runtime, version = _text(container.get("runtime")), _text(container.get("version"))
    refused = _text(_mapping(report.get("namespaces")).get("problem"))
    if not runtime:
        path = _text(report.get("path"))
        words = f"neither apptainer nor singularity is in PATH ({path})"
        fix = "load it in spec.prelude of the Cluster, such as: module load apptainer"
        yield failed(subject, "Container", words, fix) if image else warned(subject, "Container", words, fix)
        return
    yield passed(subject, "Container", f"{runtime}: {version}")
    ran = bool(tried.get("tried")) and not _text(tried.get("problem"))
    if refused and not ran:
        words = f"an unprivileged user namespace is refused: {refused}"
        fix = "fine where Apptainer is installed with setuid; else ask your site for user.max_user_namespaces and AppArmor"
        yield warned(subject, "Namespaces", words, fix)
    if not report.get("fuse") and not ran:
        fix = "fine where Apptainer mounts with setuid; else images are unpacked at every start: slow, and it takes space"
        yield warned(subject, "Fuse", "there is no /dev/fuse", fix)
    if not image:
        return
    if ran:
        yield passed(subject, "Image", f"started in {_number(tried.get('seconds')):.1f} s")
    elif tried.get("tried"):
        fix = "try it on a node: apptainer exec --contain --cleanenv IMAGE true"
        yield failed(subject, "Image", _text(tried.get("problem"))[-_CUT:], fix)
    else:
        yield failed(subject, "Image", "was not tried: it is not on this node", "see Artifacts")


def _gpus(subject: str, seen: Mapping[str, Any], wanted: int) -> Check:
    name = next((name for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES") if name in seen), "")
    value = _text(seen.get(name))
    devices = [] if value == "NoDevFiles" else [each for each in value.split(",") if each.strip()]
    if len(devices) == wanted:
        return passed(subject, "GPUs", f"{wanted} as asked for" if wanted else "none, as asked for")
    words = f"{wanted} asked for, the job sees {len(devices)} ({name}={value!r})"
    if not wanted:
        return warned(subject, "GPUs", words, "this site does not hide GPUs from jobs that have none")
    return failed(subject, "GPUs", words, "check gres in the profile; ask your site about gres.conf")


def _controllers(subject: str, seen: list[Any]) -> Iterable[Check]:
    fix = (
        "open the way from nodes to the controller's --agent-listen port, or set --agent-advertise to an address that "
        "nodes reach"
    )
    if not seen:
        yield failed(
            subject, "NodeToController", "the controller has published no address", "restart the controller"
        )
        return
    reached = [_mapping(each) for each in seen if not _text(_mapping(each).get("problem"))]
    if reached:
        yield passed(subject, "NodeToController", _text(reached[0].get("url")))
        return
    words = "; ".join(
        f"{_text(_mapping(each).get('url'))}: {_text(_mapping(each).get('problem'))}" for each in seen
    )
    words = f"agents would report through files in sharedDir, which is slower: {words[:_CUT]}"
    yield warned(subject, "NodeToController", words, fix)


def door(report: Mapping[str, Any]) -> tuple[str, int] | None:
    """Where the node waits for somebody to knock."""
    found = _mapping(report.get("door"))
    host, port = _text(found.get("host")), found.get("port")
    return (host, port) if host and isinstance(port, int) and 0 < port < 65536 else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value[:2000] if isinstance(value, str) else ""


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
