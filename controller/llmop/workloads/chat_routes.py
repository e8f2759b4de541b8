"""/v1/chat/completions of models without replicas, and /v1/tribunal: who answers is found by the name."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llmop.domain.tribunal import Tribunal
from llmop.workloads import calls
from llmop.workloads.assistant import routes as assistants
from llmop.workloads.bodies import object_of
from llmop.workloads.outlook import Outlook
from llmop.workloads.refusals import Refused, invalid
from llmop.workloads.service import Service
from llmop.workloads.tribunal import routes as tribunals

_BODY_LIMIT = 4 * 1024 * 1024


def routes(service: Service) -> list[Route]:
    tribunal, assistant = tribunals.answering(service), assistants.answering(service)

    def outlook_for(request: Request) -> Outlook | None:
        """None where the client does not want to hear what its answer waits for."""
        return service.outlook if request.headers.get("x-llmop-progress") == "1" else None

    async def chat(request: Request) -> Response:
        body = await _body(request)
        calls.as_patient_as(request.headers)
        found = await service.virtual.find(_model(body))
        outlook = outlook_for(request)
        return await (
            tribunal(found, body, outlook) if isinstance(found, Tribunal) else assistant(found, body, outlook)
        )

    async def sit(request: Request) -> Response:
        body = await _body(request)
        calls.as_patient_as(request.headers)
        found = await service.virtual.find(_model(body))
        if not isinstance(found, Tribunal):
            message = f"the model '{found.name}' is no tribunal: use /v1/chat/completions"
            raise Refused(422, "route_not_supported", message, "model")
        return await tribunal(found, body, outlook_for(request))

    return [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/tribunal", sit, methods=["POST"]),
    ]


async def _body(request: Request) -> bytes:
    """Raises Refused."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _BODY_LIMIT:
            message = f"tribunals and assistants take requests of up to {_BODY_LIMIT} bytes"
            raise Refused(413, "body_too_large", message)
    return bytes(body)


def _model(body: bytes) -> str:
    """Raises Refused."""
    model = object_of(body).get("model")
    if not isinstance(model, str):
        raise invalid("model", "must name a tribunal or an assistant")
    return model
