"""AdminService: what goes in reaches whoever answers, and what is wrong with a request is said."""

import grpc
import pytest
from tests.control.rig import Rig

from llmop.api.v1 import admin_pb2
from llmop.domain.checks import PreflightQuestion, failed, passed, warned


async def test_discover_gives_the_files_in_order(rig: Rig) -> None:
    rig.administration.files = {"cluster-hpc.yaml": "one\n", "profile-a.yaml": "two\n"}
    answer = await rig.admin.Discover(admin_pb2.DiscoverRequest(cluster="hpc", shared_dir="/shared"))
    assert [(each.name, each.text) for each in answer.files] == list(rig.administration.files.items())
    await rig.admin.Discover(admin_pb2.DiscoverRequest())
    assert rig.administration.discovered == [("hpc", "/shared"), ("default", "")]


async def test_preflight_sends_each_check_with_its_result(rig: Rig) -> None:
    rig.administration.checks = [passed("a", "b"), warned("a", "c", "m", "f"), failed("a", "d", "m", "f")]
    request = admin_pb2.PreflightRequest(
        namespace="lab", deployment="chat", manifests_json=["{}"], skip_node=True, wait_seconds=7
    )
    answers = [each.check async for each in rig.admin.Preflight(request)]
    assert [each.result for each in answers] == [
        admin_pb2.Check.RESULT_PASS,
        admin_pb2.Check.RESULT_WARN,
        admin_pb2.Check.RESULT_FAIL,
    ]
    assert rig.administration.questions == [
        PreflightQuestion(
            namespace="lab", deployment="chat", manifests_json=("{}",), skip_node=True, wait_s=7.0
        )
    ]


@pytest.mark.parametrize("seconds", [-1, 86_401])
async def test_a_wait_out_of_bounds_is_refused(rig: Rig, seconds: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        async for _ in rig.admin.Preflight(admin_pb2.PreflightRequest(wait_seconds=seconds)):
            pass
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "wait_seconds: must be from 0 to 86400" in str(error.value.details())


async def test_doctor_gives_all_checks(rig: Rig) -> None:
    rig.administration.checks = [passed("store", "Answers", "fine")]
    (check,) = (await rig.admin.Doctor(admin_pb2.DoctorRequest())).checks
    assert (check.subject, check.name, check.message, check.fix) == ("store", "Answers", "fine", "")
