"""AdminService: what whoever runs an installation asks of it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from llmop.api.v1 import admin_pb2, admin_pb2_grpc
from llmop.domain import checks
from llmop.rpc.errors import BadRequest

MOST_WAIT_S = 24 * 3600

_RESULTS = {
    checks.Result.OK: admin_pb2.Check.RESULT_PASS,
    checks.Result.WARN: admin_pb2.Check.RESULT_WARN,
    checks.Result.FAIL: admin_pb2.Check.RESULT_FAIL,
}


class Administration(Protocol):
    """Who answers (`llmop.admin.office.Office`). Errors are those of `llmop.domain.errors`."""

    async def discover(self, cluster: str, shared_dir: str) -> Mapping[str, str]:
        """Names and texts of the proposed files."""
        ...

    def preflight(self, question: checks.PreflightQuestion) -> AsyncIterator[checks.Check]:
        """Checks, each as soon as it is done."""
        ...

    async def doctor(self) -> Sequence[checks.Check]: ...


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    async def Discover(  # noqa: N802  # named by the proto
        self, request: admin_pb2.DiscoverRequest, context: Any
    ) -> admin_pb2.DiscoverResponse:
        files = await self._administration.discover(request.cluster or "default", request.shared_dir)
        return admin_pb2.DiscoverResponse(
            files=[admin_pb2.ProposedFile(name=name, text=text) for name, text in files.items()]
        )

    async def Preflight(  # noqa: N802  # named by the proto
        self, request: admin_pb2.PreflightRequest, context: Any
    ) -> AsyncIterator[admin_pb2.PreflightResponse]:
        if not 0 <= request.wait_seconds <= MOST_WAIT_S:
            raise BadRequest(f"wait_seconds: must be from 0 to {MOST_WAIT_S}, got {request.wait_seconds}")
        question = checks.PreflightQuestion(
            cluster=request.cluster,
            namespace=request.namespace or "default",
            deployment=request.deployment,
            manifests_json=tuple(request.manifests_json),
            skip_node=request.skip_node,
            wait_s=float(request.wait_seconds or 300),
        )
        async for check in self._administration.preflight(question):
            yield admin_pb2.PreflightResponse(check=_message(check))

    async def Doctor(  # noqa: N802  # named by the proto
        self, request: admin_pb2.DoctorRequest, context: Any
    ) -> admin_pb2.DoctorResponse:
        return admin_pb2.DoctorResponse(
            checks=[_message(check) for check in await self._administration.doctor()]
        )


def _message(check: checks.Check) -> admin_pb2.Check:
    return admin_pb2.Check(
        subject=check.subject,
        name=check.name,
        result=_RESULTS[check.result],
        message=check.message,
        fix=check.fix,
    )
