"""Turns what servicers raise into statuses, so that no servicer has to."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import structlog

from llmop.clock import Clock
from llmop.domain import errors
from llmop.rpc import status

_log = structlog.get_logger("llmop.rpc")


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc ships no types
    """LlmopError -> its status. Anything else is logged with its traceback and reaches the caller as INTERNAL."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        method = handler_call_details.method
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(method, handler.unary_stream),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._single(method, handler.unary_unary),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _single(self, method: str, call: Callable[[Any, Any], Awaitable[Any]]) -> Any:
        async def answer(request: Any, context: Any) -> Any:
            try:
                return await call(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001  # a caller always gets a status
                await self._abort(method, context, error)

        return answer

    def _streaming(self, method: str, call: Callable[[Any, Any], Any]) -> Any:
        async def answer(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                async with contextlib.aclosing(call(request, context)) as responses:
                    async for response in responses:
                        yield response
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001  # a caller always gets a status
                await self._abort(method, context, error)

        return answer

    async def _abort(self, method: str, context: Any, error: Exception) -> None:
        if not isinstance(error, errors.LlmopError):
            _log.error("call failed", method=method, exc_info=error)
        await context.abort_with_status(status.to_grpc(error, self._clock.now()))
