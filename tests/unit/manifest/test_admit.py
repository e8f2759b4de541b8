"""What one object may say by itself, and what is stored of it."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmop.domain import errors, resources
from llmop.manifest import admit, convert, merge

EXAMPLES = settings(max_examples=150)

MINIMAL = {
    "apiVersion": "llmop/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "llama"},
    "spec": {"runtime": "simulator"},
}
FULL = {
    "apiVersion": "llmop/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {
        "name": "llama",
        "namespace": "nlp",
        "labels": {"team": "a", "llmop.org/x": ""},
        "annotations": {"n": "b c"},
    },
    "spec": {
        "model": {"uri": "file:///models/Llama 3", "name": "meta-llama/Llama-3.1-8B"},
        "runtime": "tgi",
        "image": "/images/tgi.sif",
        "args": ["--max-batch-size=4", "{scratch}", ""],
        "env": {"A": "", "B": "$HOME\n"},
        "envFrom": [{"secretFile": "team/hf.env"}],
        "resourceProfile": "a100:2",
        "resources": {"cpus": 8, "memory": "64Gi"},
        "cluster": "default",
        "slurm": {
            "partition": "gpu,gpu2",
            "account": "p_nlp",
            "qos": "high",
            "gres": "gpu:a100:2",
            "timeLimit": "1-00:00:00",
            "timeMin": "4h",
            "constraint": "a100&ib",
            "reservation": "r1",
            "exclude": ["n[1-3]", "n7"],
            "nodelist": ["n9"],
            "extraArgs": ["--exclusive", "--licenses=x:1"],
        },
        "replicas": 3,
        "rolloutStrategy": {"type": "RollingUpdate", "maxSurge": 2, "maxUnavailable": 1},
        "progressDeadline": "1h",
        "minReady": "10s",
        "revisionHistoryLimit": 3,
        "probes": {
            "startup": {"timeout": "1h30m"},
            "readiness": {"period": "2s"},
            "liveness": {"failureThreshold": 5},
        },
        "terminationGracePeriod": "5m",
        "queue": {
            "maxInFlight": 8,
            "maxRequests": 10,
            "maxBytes": "1Gi",
            "requestTTL": "5s",
            "noEndpointRequestTTL": "0s",
        },
    },
}
RUNTIME = {
    "apiVersion": "llmop/v1alpha1",
    "kind": "ServingRuntime",
    "metadata": {"name": "x"},
    "spec": {
        "engine": "x",
        "container": "apptainer",
        "command": ["run", "--port={port}", "{{literal}}"],
        "env": {"HOME": "{scratch}"},
        "probes": {"warmup": {"path": "/g", "body": {"a": None, "b": {}, "c": [1.5, {"d": "{servedName}"}]}}},
        "binds": ["{sharedDir}/tools"],
    },
}
PROFILE = {
    "apiVersion": "llmop/v1alpha1",
    "kind": "ResourceProfile",
    "metadata": {"name": "a100"},
    "spec": {
        "gres": "gpu:a100",
        "cpusPerGPU": 8,
        "memoryPerGPU": "64Gi",
        "gpusPerNode": 4,
        "timeLimit": "24:00:00",
    },
}
CLUSTER = {
    "apiVersion": "llmop/v1alpha1",
    "kind": "Cluster",
    "metadata": {"name": "default"},
    "spec": {
        "driver": "slurm",
        "sharedDir": "/shared/llmop",
        "prelude": ["module load apptainer"],
        "allowed": {
            "images": [],
            "modelRoots": ["/models"],
            "secretRoot": "/secrets",
            "args": ["--x"],
            "extraArgs": ["--exclusive"],
        },
        "submitRate": {"perSecond": 0.5},
        "pollInterval": {"min": "200ms"},
    },
}
KEY = {
    "apiVersion": "llmop/v1alpha1",
    "kind": "APIKey",
    "metadata": {"name": "ci"},
    "spec": {
        "keyHash": "sha256:" + 32 * "0f",
        "models": ["chat", "meta-llama/Llama-3.2-1B"],
        "limits": {"requestsPerMinute": 60},
        "expiresAt": "2026-12-31T23:00:00Z",
    },
}
SAMPLES = (MINIMAL, FULL, RUNTIME, PROFILE, CLUSTER, KEY)


def violations(data: Any) -> dict[str, tuple[str, str]]:
    with pytest.raises(errors.Invalid) as caught:
        admit.admit(data, namespace="")
    return {each.path: (each.reason, each.message) for each in caught.value.violations}


def with_spec(**fields: Any) -> dict[str, Any]:
    return {**MINIMAL, "spec": {**MINIMAL["spec"], **fields}}  # type: ignore[dict-item]


def convert_any(resource: resources.Resource) -> object:
    return {
        "ModelDeployment": convert.deployment,
        "ServingRuntime": convert.runtime,
        "ResourceProfile": convert.profile,
        "Cluster": convert.site,
        "APIKey": convert.client_key,
    }[resource.kind](resource)


def test_defaults_are_filled_in_explicitly() -> None:
    resource = admit.admit(MINIMAL, namespace="")

    assert (
        resources.Resource(
            kind="ModelDeployment",
            name="llama",
            namespace="default",
            spec={
                "model": {"name": "llama"},
                "runtime": "simulator",
                "replicas": 1,
                "rolloutStrategy": {"type": "RollingUpdate", "maxSurge": 1, "maxUnavailable": 0},
                "progressDeadline": "30m",
                "minReady": "0s",
                "revisionHistoryLimit": 10,
                "probes": {
                    "startup": {"timeout": "30m"},
                    "readiness": {"period": "5s"},
                    "liveness": {"failureThreshold": 3},
                },
                "terminationGracePeriod": "120s",
                "queue": {
                    "maxRequests": 1000,
                    "maxBytes": "64Mi",
                    "requestTTL": "60s",
                    "noEndpointRequestTTL": "10m",
                },
            },
        )
        == resource
    )


def test_a_complete_manifest_is_stored_as_it_was_written() -> None:
    resource = admit.admit(FULL, namespace="")

    assert FULL == admit.document(resource)


@pytest.mark.parametrize("data", SAMPLES, ids=lambda data: data["kind"])
def test_what_is_stored_is_a_manifest_of_the_same_object(data: dict[str, Any]) -> None:
    stored = admit.admit(data, namespace="")

    assert stored == admit.admit(admit.document(stored), namespace="")


def test_the_namespace_of_the_manifest_wins_over_the_callers() -> None:
    assert "nlp" == admit.admit(FULL, namespace="other").namespace
    assert "other" == admit.admit(MINIMAL, namespace="other").namespace
    assert "default" == admit.admit(MINIMAL, namespace="").namespace
    assert "" == admit.admit(CLUSTER, namespace="other").namespace


def test_empty_mappings_say_nothing() -> None:
    assert admit.admit(MINIMAL, namespace="") == admit.admit(
        with_spec(env={}, slurm={}, resources={}, model={}, probes={"startup": {}}), namespace=""
    )


def test_the_json_of_a_warm_up_is_kept_as_it_is() -> None:
    spec = admit.admit(RUNTIME, namespace="").spec

    assert RUNTIME["spec"]["probes"]["warmup"]["body"] == spec["probes"]["warmup"]["body"]  # type: ignore[index]


def test_every_violation_comes_at_once() -> None:
    found = violations(
        {
            "apiVersion": "v1",
            "kind": "ModelDeployment",
            "metadata": {"name": "Llama", "uid": "x"},
            "spec": {"replicas": -1, "rollover": {}, "model": {"uri": "s3://a/b"}, "argz": []},
            "extra": 1,
        }
    )

    assert {
        "apiVersion": "InvalidValue",
        "extra": "Unknown",
        "metadata.name": "InvalidValue",
        "metadata.uid": "Forbidden",
        "spec.runtime": "Required",
        "spec.replicas": "InvalidValue",
        "spec.rollover": "Unsupported",
        "spec.model.uri": "InvalidValue",
        "spec.argz": "Unknown",
    } == {path: reason for path, (reason, _) in found.items()}
    assert 'unknown field; did you mean "args"?' == found["spec.argz"][1]


@pytest.mark.parametrize("name", ["rollover", "loadBalancing", "trafficPolicy"])
def test_fields_of_later_versions_are_refused_by_name(name: str) -> None:
    assert {f"spec.{name}": ("Unsupported", "is not supported in this version; remove it")} == violations(
        with_spec(**{name: {}})
    )


@pytest.mark.parametrize("kind", ["Route", "GitSource"])
def test_kinds_of_later_versions_are_refused_by_name(kind: str) -> None:
    assert {"kind": ("Unsupported", f"'{kind}' is not supported in this version")} == violations(
        {**MINIMAL, "kind": kind}
    )


def test_a_mapping_that_is_too_deep_for_recursion_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}

    (found,) = violations(with_spec(model=deep)).values()

    assert "is nested deeper than 32 levels" == found[1]
    while deep:  # taken apart by hand: dropping it whole would recurse
        deep = deep.pop("a")


def test_a_string_may_have_64_kibibytes() -> None:
    admit.admit(with_spec(args=["é" * 32768]), namespace="")

    (found,) = violations(with_spec(args=["é" * 32769])).values()
    assert "is longer than 65536 bytes; put the text into a file" in found[1]


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\x7f", "\x85", "\ud800"])
def test_control_characters_are_refused_wherever_they_stand(character: str) -> None:
    assert "spec.args[0]" in violations(with_spec(args=[f"a{character}"]))
    assert "spec.env" in violations(with_spec(env={f"a{character}": "b"}))


def test_values_that_json_cannot_hold_are_refused() -> None:
    assert ["spec.env.A"] == list(violations(with_spec(env={"A": b"bytes"})))
    assert ["spec.replicas"] == list(violations(with_spec(replicas=float("nan"))))
    assert ["spec.replicas"] == list(violations(with_spec(replicas=2**80)))


def test_what_is_told_about_a_manifest_is_bounded() -> None:
    many = violations(with_spec(env={f"K{index}": index for index in range(5000)}))
    assert 101 == len(many)
    assert ("InvalidValue", "4900 more problems are not shown") == many[""]

    (long,) = violations(with_spec(runtime="x" * 60_000)).values()
    assert len(long[1]) < 600
    assert long[1].endswith("is not a name: lower-case letters, digits and -, at most 63, no - at either end")

    assert [("spec.env", "TooLong")] == [
        (path, reason) for path, (reason, _) in violations(with_spec(env={"A" * 600: "b"})).items()
    ]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 10**12)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        ["90s", "a100:2", "cpu", "64Gi", "file:///m/x.gguf", "/i.sif", "gpu:a100", "1-00:00:00", "{port}"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, trail: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(value, dict):
        return [trail, *(each for key, item in value.items() for each in places(item, (*trail, key)))]
    if isinstance(value, list):
        return [trail, *(each for index, item in enumerate(value) for each in places(item, (*trail, index)))]
    return [trail]


def put(data: Any, trail: tuple[str | int, ...], value: Any) -> Any:
    """`data` with another value at `trail`; GONE takes the field away."""
    if not trail:
        return value
    data = copy.copy(data)
    if len(trail) == 1 and value is GONE:
        del data[trail[0]]
    else:
        data[trail[0]] = put(data[trail[0]], trail[1:], value)
    return data


GONE = object()
ALIKE = {
    str: st.sampled_from(["90s", "1h", "a", "n1", "64Gi", "/x.sif", "file:///m/x", "gpu:a100", "{port}"])
    | st.text(max_size=5),
    int: st.integers(0, 40),
    list: st.lists(st.sampled_from(["a", "n[1-3]", "--exclusive", "{{", "{port}"]), max_size=3),
}


@st.composite
def mutants(draw: st.DrawFn) -> dict[str, Any]:
    """A good manifest with up to three fields taken away, changed to something of their sort, or to anything."""
    data: Any = draw(st.sampled_from(SAMPLES))
    for _ in range(draw(st.integers(1, 3))):
        trail = draw(st.sampled_from([place for place in places(data) if len(place) > 1] or [("kind",)]))
        old = data
        for step in trail:
            old = old[step]
        choice = draw(st.sampled_from(["gone", "alike", "alike", "anything"]))
        if choice == "anything":
            data = put(data, trail, draw(VALUES))
        elif choice == "alike" and type(old) in ALIKE:
            data = put(data, trail, draw(ALIKE[type(old)]))
        else:
            data = put(data, trail, GONE)
    return data  # type: ignore[no-any-return]


def test_many_mutants_live_and_many_do_not() -> None:
    """Or the property below would say little."""
    lives: list[bool] = []

    @EXAMPLES
    @given(data=mutants())
    def count(data: dict[str, Any]) -> None:
        try:
            admit.admit(data, namespace="")
        except errors.Invalid:
            lives.append(False)
        else:
            lives.append(True)

    count()
    assert 0.1 < sum(lives) / len(lives) < 0.9


@EXAMPLES
@given(data=mutants())
def test_any_manifest_is_refused_with_reasons_or_stored_so_that_it_round_trips(data: dict[str, Any]) -> None:
    try:
        stored = admit.admit(data, namespace="")
    except errors.Invalid as invalid:
        assert all(each.message and each.reason for each in invalid.violations)
        return
    assert stored == admit.admit(admit.document(stored), namespace="")
    convert_any(stored)
    assert merge.Verdict.UNCHANGED == merge.apply(stored, data, manager="m").verdict


@EXAMPLES
@given(data=VALUES)
def test_any_mapping_at_all_is_refused_with_reasons(data: Any) -> None:
    if isinstance(data, dict):
        assert violations(data)
        assert violations({**MINIMAL, "metadata": data})
        assert violations({**MINIMAL, "spec": data})
