"""What members of a tribunal are asked, in OpenAI's chat form. Pure.

One message carries instructions and material: not every chat template knows a system role, or two messages of one role in a row.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from llmop.domain.tribunal import Prompts
from llmop.workloads.tribunal.reviews import BEST

Message = Mapping[str, Any]

_CRITIQUE = (
    "You are a critic. Below stand a conversation and several drafts of the next answer in it, by authors you do not know. Judge each"
    " draft for itself: is it right, complete, and what was asked for? Name faults precisely. Neither length nor order says anything."
)
_REFINE = (
    "Critics have read your answer. Write it again: mend what they found where they are right, keep what is good, and do not mention"
    " the critics."
)
_JUDGE = (
    "Write the final answer to what stands above. Several drafts of it and what critics found in them follow. Take what is right in"
    " the drafts, whoever wrote it. An objection that only one critic raises may be the important one: check each. Answer directly,"
    " without a word about drafts, critics or this instruction."
)
_SHAPE = (
    "Answer with one JSON object and nothing else, in this form, with one entry for every draft:\n"
    '{"reviews": {"A": {"score": 0, "findings": ["..."]}}}\n'
    f"score is a whole number from 0 (useless) to {BEST:g} (nothing to add); findings lists faults and merits, one sentence each."
)


class Shown(NamedTuple):
    """A draft under its label."""

    label: str
    text: str


class Objection(NamedTuple):
    """What one critic found in the draft with this label; `dissents` marks a critic who is of another opinion than the others."""

    label: str
    score: float
    findings: tuple[str, ...]
    dissents: bool = False


def critique(prompts: Prompts, conversation: Sequence[Message], drafts: Sequence[Shown]) -> list[Message]:
    """`drafts` in the order in which this critic reads them."""
    parts = [
        prompts.critique or _CRITIQUE,
        f"<conversation>\n{_rendered(conversation)}\n</conversation>",
        *(_draft(each) for each in drafts),
        _SHAPE,
    ]
    return [{"role": "user", "content": "\n\n".join(parts)}]


def refine(
    prompts: Prompts, conversation: Sequence[Message], draft: str, objections: Sequence[Objection]
) -> list[Message]:
    """The conversation goes on as if the draft had been the answer. Who thought least of it is read first."""
    lines = [prompts.refine or _REFINE, ""]
    for each in sorted(objections, key=lambda one: one.score):
        lines.append(f"A critic gives it {each.score:g} of {BEST:g}:")
        lines += [f"- {finding}" for finding in each.findings] or ["- (nothing in words)"]
    return [
        *conversation,
        {"role": "assistant", "content": draft},
        {"role": "user", "content": "\n".join(lines)},
    ]


def judge(
    prompts: Prompts,
    conversation: Sequence[Message],
    drafts: Sequence[Shown],
    critiques: Sequence[Sequence[Objection]],
) -> list[Message]:
    """`critiques` has what each critic found; those who dissent come first, and none is left out."""
    parts = [prompts.judge or _JUDGE, *(_draft(each) for each in drafts)]
    for number, found in enumerate(
        sorted(critiques, key=lambda each: not any(one.dissents for one in each)), 1
    ):
        word = " dissent" if any(each.dissents for each in found) else ""
        lines = [f'<critic number="{number}"{word}>']
        for each in found:
            lines.append(f"draft {each.label}: {each.score:g} of {BEST:g}")
            lines += [f"- {finding}" for finding in each.findings]
        parts.append("\n".join([*lines, "</critic>"]))
    if not critiques:
        parts.append("(No critic gave a usable opinion.)")
    return _with_instruction(conversation, "\n\n".join(parts))


def _draft(each: Shown) -> str:
    return f'<draft id="{each.label}">\n{each.text}\n</draft>'


def _with_instruction(conversation: Sequence[Message], text: str) -> list[Message]:
    """Added to the last message where that is the user's."""
    *before, last = conversation
    content = last.get("content")
    if last.get("role") != "user" or not isinstance(content, str | list):
        return [*conversation, {"role": "user", "content": text}]
    if isinstance(content, str):
        return [*before, {**last, "content": f"{content}\n\n---\n\n{text}"}]
    return [*before, {**last, "content": [*content, {"type": "text", "text": text}]}]


def _rendered(conversation: Sequence[Message]) -> str:
    return "\n\n".join(f"{each.get('role', 'user')}: {_text(each.get('content'))}" for each in conversation)


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(
            str(part.get("text", "")) if part.get("type") == "text" else f"[{part.get('type', 'part')}]"
            for part in content
            if isinstance(part, dict)
        )
    return content if isinstance(content, str) else ""
