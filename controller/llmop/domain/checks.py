"""Results of looking at something: what `llmctl preflight` and `llmctl doctor` print."""

import dataclasses
import enum


class Result(enum.StrEnum):
    OK = "PASS"
    WARN = "WARN"  # it may work, or is not checked; `fix` says what would make it certain
    FAIL = "FAIL"  # it will not work


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that was looked at. `subject` is what it is about, `fix` what to do; "" for PASS."""

    subject: str
    name: str
    result: Result
    message: str = ""
    fix: str = ""


def passed(subject: str, name: str, message: str = "") -> Check:
    return Check(subject=subject, name=name, result=Result.OK, message=message)


def warned(subject: str, name: str, message: str, fix: str) -> Check:
    return Check(subject=subject, name=name, result=Result.WARN, message=message, fix=fix)


def failed(subject: str, name: str, message: str, fix: str) -> Check:
    return Check(subject=subject, name=name, result=Result.FAIL, message=message, fix=fix)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PreflightQuestion:
    """What a preflight is about. With no deployment, by name or in a manifest, it is about the cluster and its
    profiles. `manifests_json` stand over what is stored under the same names."""

    cluster: str = ""
    namespace: str = "default"
    deployment: str = ""
    manifests_json: tuple[str, ...] = ()
    skip_node: bool = False
    wait_s: float = 300.0
