"""What a tribunal did, as clients read it below `llmop.tribunal`, and its answer in OpenAI's chat form. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

from llmop.workloads.tribunal.trial import Trial, tokens_of
from llmop.workloads.tribunal.values import Answer, Failed, Failure, Heard, Phase, Tokens, Verdict


def usage(tokens: Tokens) -> dict[str, int]:
    """Of all calls together."""
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.total,
    }


def transcript(trial: Trial, verdict: Verdict, seconds: float) -> dict[str, Any]:
    """Drafts, critiques with their scores, and what every member took."""
    outcome = verdict.outcome.value if isinstance(verdict, Answer) else "failed"
    reason = verdict.reason if isinstance(verdict, Answer) else f"{verdict.code}: {verdict.message}"
    return {
        "name": trial.tribunal.name,
        "outcome": outcome,
        "reason": reason,
        "rounds": trial.round,
        "seed": trial.seed,
        "seconds": round(seconds, 3),
        "estimated": trial.spent.estimated,
        "drafts": [
            {
                "draft": each.author.label,
                "member": each.author.member,
                "model": each.author.model,
                "round": each.round,
                "text": each.text,
                "finish_reason": each.finish_reason,
                "scores": list(each.scores),
                "standing": each.standing,
            }
            for each in trial.drafts
        ],
        "critiques": [
            {
                "member": each.member,
                "model": each.model,
                "round": each.round,
                "dissents": each.dissents,
                "problem": each.problem or None,
                "reviews": [
                    {"draft": one.label, "score": one.score, "findings": list(one.findings)}
                    for one in each.reviews
                ],
            }
            for each in trial.critiques
        ],
        "calls": [_call(each) for each in trial.heard],
        "members": list(_members(trial.heard)),
    }


def _call(heard: Heard) -> dict[str, Any]:
    call, result = heard.call, heard.result
    failure = result if isinstance(result, Failure) else None
    return {
        "step": call.role.value,
        "round": call.round,
        "member": call.member,
        "model": call.model,
        "outcome": failure.reason if failure else "answered",
        "problem": failure.message if failure else None,
        "seconds": round(heard.seconds, 3),
        "tokens": usage(result.tokens) if result.tokens is not None else None,
    }


def _members(heard: Sequence[Heard]) -> Iterator[dict[str, Any]]:
    for name in dict.fromkeys(each.call.member for each in heard):
        own = [each for each in heard if each.call.member == name]
        yield {
            "member": name,
            "model": own[0].call.model,
            "calls": len(own),
            "seconds": round(sum(each.seconds for each in own), 3),
            "tokens": usage(tokens_of(own)),
        }


def progress(event: Phase | Heard) -> dict[str, Any]:
    """The event of a step that begins, or of a call that is over."""
    if isinstance(event, Phase):
        return {
            "event": "step",
            "step": event.role.value,
            "round": event.round,
            "members": [call.member for call in event.calls],
        }
    call, result = event.call, event.result
    return {
        "event": "call",
        "step": call.role.value,
        "round": call.round,
        "member": call.member,
        "model": call.model,
        "outcome": result.reason if isinstance(result, Failure) else "answered",
        "seconds": round(event.seconds, 3),
    }


def completion(
    name: str, model: str, now: float, answer: Answer, told: dict[str, Any], tokens: Tokens
) -> Any:
    """A whole answer. `usage` stands last, where the gateway looks for it."""
    message = {"role": "assistant", "content": answer.text}
    return {
        "id": name,
        "object": "chat.completion",
        "created": int(now),
        "model": model,
        "choices": [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
        ],
        "llmop": {"tribunal": told},
        "usage": usage(tokens),
    }


def chunk(
    name: str,
    model: str,
    now: float,
    delta: dict[str, Any],
    *,
    finish_reason: str | None = None,
    told: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One event of a stream. What only we say stands beside an empty delta: clients that do not know it see nothing."""
    content: dict[str, Any] = {
        "id": name,
        "object": "chat.completion.chunk",
        "created": int(now),
        "model": model,
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }
    return content if told is None else {**content, "llmop": {"tribunal": told}}


def usage_chunk(name: str, model: str, now: float, tokens: Tokens) -> dict[str, Any]:
    return {**chunk(name, model, now, {}), "choices": [], "usage": usage(tokens)}


def error(failed: Failed, told: dict[str, Any], tokens: Tokens) -> dict[str, Any]:
    kind = "invalid_request_error" if failed.status < 500 else "server_error"
    said = {"message": failed.message, "type": kind, "param": None, "code": failed.code}
    return {"error": said, "llmop": {"tribunal": told}, "usage": usage(tokens)}
