"""Which model a request is for, and which bytes its engine gets. Pure."""

from collections.abc import Mapping
from typing import Any

import orjson

from llmop.domain.endpoint import RoutedModel
from llmop.gateway.errors import Dialect, Refusal, bad_request, unknown_model
from llmop.gateway.routes import Route

_OPENAI, _TGI = Dialect.OPENAI, Dialect.TGI  # members of an enumeration take some time to look up
_ASK = b',"stream_options":{"include_usage":true}}'


# The model's name, the bytes that its engine gets, whether the answer's stream will hold usage that the client did not ask for, and the client's
# JSON where it was read. No named tuple: making one and taking it apart costs as much as reading a small body.
Admission = tuple[str, bytes, bool, dict[str, Any] | None]


def admit(
    route: Route, header_model: str | None, body: bytes, models: Mapping[str, RoutedModel]
) -> Admission | Refusal:
    """The client's own bytes are kept unless the engine has to read another name as "model", or has to be asked for the usage of a
    stream; also then they are kept but for what is added, where that can be.
    """
    if route.dialect is _TGI:
        return _admit_tgi(route, header_model, body, models)
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return bad_request(f"the body is not valid JSON: {error}")
    if type(request) is not dict:
        return bad_request("the body must be a JSON object")
    asked = request.get("model")
    name = asked if route.model is None else route.model
    if type(name) is not str:
        fault = "is missing" if name is None else "must be a string"
        return bad_request(f"the field 'model' {fault}: name one of GET /v1/models", "model_missing")
    model = models.get(name)
    if model is None:
        return unknown_model(name)
    if (model.virtual or route.is_virtual) and (problem := _wrong_kind(route, model)) is not None:
        return problem
    if _OPENAI not in model.protocols and not _embeds(route, model):
        return _not_spoken(model, Dialect.OPENAI)
    wanted = model.upstream_model or name
    ask_usage = (
        request.get("stream") is True
        and route.streams
        and model.usage_in_stream
        and _leaves_usage_out(request.get("stream_options"))
    )
    if asked != wanted or (ask_usage and "stream_options" in request):
        request["model"] = wanted
        if ask_usage:
            request["stream_options"] = {**(request.get("stream_options") or {}), "include_usage": True}
        try:
            body = orjson.dumps(request)
        except orjson.JSONEncodeError:  # it reads 1024 levels, and writes 254
            return bad_request("the body is nested too deeply: at most 250 levels are passed on")
    elif ask_usage:
        body = body[: body.rindex(b"}")] + _ASK
    return name, body, ask_usage, request


def _leaves_usage_out(options: Any) -> bool:
    """What is neither an object nor null is the engine's to refuse."""
    return options is None or (isinstance(options, dict) and not options.get("include_usage"))


def _admit_tgi(
    route: Route, header_model: str | None, body: bytes, models: Mapping[str, RoutedModel]
) -> Admission | Refusal:
    name = route.model or header_model
    if name is None:
        speaking = [model.name for model in models.values() if Dialect.TGI in model.protocols]
        if len(speaking) != 1:
            return bad_request(
                f"{len(speaking)} models speak this dialect, so one has to be named: "
                "send the header X-Model, or put /models/<name> before the path",
                "model_missing",
            )
        name = speaking[0]
    model = models.get(name)
    if model is None:
        return unknown_model(name)
    if Dialect.TGI not in model.protocols:
        return _not_spoken(model, Dialect.TGI)
    return name, body, False, None


_CHAT_ROUTE = "/v1/chat/completions"
_ROUTES = {Dialect.OPENAI: _CHAT_ROUTE, Dialect.TGI: "/generate"}
# The one route of OpenAI's dialect that an engine speaks which makes embeddings and no text, and its word in `protocols`.
_EMBEDDINGS_ROUTE = "/v1/embeddings"
_EMBEDDINGS = "embeddings"


def _wrong_kind(route: Route, model: RoutedModel) -> Refusal | None:
    """A virtual model answers chats, and only such a model has a route of its own."""
    if model.virtual and (route.is_virtual or route.target.partition(b"?")[0] == _CHAT_ROUTE.encode()):
        return None
    if model.virtual:
        words = f"the model '{model.name}' answers chats only: use {_CHAT_ROUTE}"
    else:
        words = f"the model '{model.name}' is no tribunal: use {_CHAT_ROUTE}"
    return Refusal(status=422, code="route_not_supported", message=words)


def _embeds(route: Route, model: RoutedModel) -> bool:
    return _EMBEDDINGS in model.protocols and route.target.partition(b"?")[0] == _EMBEDDINGS_ROUTE.encode()


def _not_spoken(model: RoutedModel, asked: Dialect) -> Refusal:
    if _EMBEDDINGS in model.protocols:
        return Refusal(
            status=422,
            code="dialect_not_supported",
            message=f"the model '{model.name}' makes embeddings and no text: use {_EMBEDDINGS_ROUTE}",
        )
    spoken = [dialect for dialect in Dialect if dialect in model.protocols]
    instead = " or ".join(_ROUTES[dialect] for dialect in spoken) or "another model"
    return Refusal(
        status=422,
        code="dialect_not_supported",
        message=f"the model '{model.name}' does not speak the dialect '{asked}', and this version does not translate: "
        f"use {instead}",
    )
