"""The language of the simulator: words out of a list, chosen by seed and prompt. One word is one token.

A token's text is a word with its leading blank, so that the texts of all tokens, joined, are the answer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

_WORD_LIST = (
    "able about above acre after again air all along also always amber among angle answer any apple arch area "
    "arm around ash autumn away back bank bark barn base basin bay beach beam bear because bell below bend best "
    "bird blue board boat body bone book both bow branch bread bridge bright broad brook brown build burn by "
    "cabin call calm camp candle canoe carry cart cave cedar chair chalk change chart circle city clay clear "
    "cliff climb clock cloud coal coast coat cold color come common copper coral corn cotton could country "
    "course cover craft creek crop cross crowd crown cup curve dark dawn day deep deer delta desk dew door "
    "dove down draw dream drift dry dune dust each eagle early earth east easy echo edge eight elm end even "
    "evening every eye face fair fall far farm fast feather fence fern few field find fire first fish five "
    "flag flat flint flood floor flow flower foam fog fold follow forest form four fox free fresh frost fruit "
    "full garden gate gentle give glass glow go gold good grain grand grass gravel great green ground grove "
    "grow half hand harbor hard harvest hay hazel head hear heart heat hedge high hill hold home honey horse "
    "hour house ice in iron island ivy join joy jump just keep key kind lake lamp land large last late leaf "
    "light lime line linen little long look low make many map maple marsh meadow mild mill mint mist moon"
)
WORDS = tuple(_WORD_LIST.split())

_MASK = (1 << 64) - 1
_FIRST_WORD_ID = 3
_END_ID = 2
_TOKEN = re.compile(r"\s*\S+(?:\s+\Z)?")


class Token(NamedTuple):
    """A generated token: id, text with its leading blank, log probability, and whether it is a control token."""

    id: int
    text: str
    logprob: float
    special: bool


END = Token(_END_ID, "</s>", -0.25, True)

# Every word has the same log probability wherever it stands.
_TOKENS = tuple(
    Token(_FIRST_WORD_ID + index, f" {word}", -(1 + index * 37 % 1024) / 512, False)
    for index, word in enumerate(WORDS)
)
_TOKEN_COUNT = len(_TOKENS)


class Answer(NamedTuple):
    """A whole generation: its tokens, its text (without control tokens), and why it ended.

    `finish_reason` is `length`, `eos_token` or `stop_sequence`.
    """

    tokens: tuple[Token, ...]
    text: str
    finish_reason: str


def count_tokens(text: str) -> int:
    """How many tokens a prompt has; text of blanks alone is one token."""
    return len(text.split()) or 1


def split_tokens(text: str) -> list[str]:
    """The tokens of a prompt; joined they are the prompt again. Empty text has none."""
    if not text:
        return []
    return _TOKEN.findall(text) or [text]


def token_id(text: str) -> int:
    """The id of a prompt's token; stable over processes and machines."""
    return _FIRST_WORD_ID + int.from_bytes(hashlib.blake2b(text.encode(), digest_size=2).digest(), "big")


def token_text(number: int) -> str:
    """The text of a generated token's id; ids of prompts have lost theirs and show as numbers."""
    if number == _END_ID:
        return END.text
    index = number - _FIRST_WORD_ID
    return _TOKENS[index].text if 0 <= index < _TOKEN_COUNT else f" <{number}>"


def natural_length(prompt: str, seed: str, typical: int) -> int:
    """How many words the answer has when the client sets no limit: between half and one and a half `typical`."""
    return max(1, typical // 2 + _start(prompt, seed) % (typical + 1))


def answer(
    prompt: str, *, seed: str, most: int, natural: int | None = None, stop: Sequence[str] = ()
) -> Answer:
    """Generate.

    `most` is the limit in tokens. With `natural` the answer ends by itself after so many words, with the end
    token; without it the limit is used up, so that a client that asks for n tokens gets n. A stop sequence ends
    it as soon as the text ends with it, and stays in the text.
    """
    state = _start(prompt, seed)
    words = most if natural is None else min(natural, most)
    tokens: list[Token] = []
    text = ""
    for _ in range(words):
        state = (state * 6364136223846793005 + 1442695040888963407) & _MASK
        token = _TOKENS[(state >> 33) % _TOKEN_COUNT]
        tokens.append(token)
        if stop:
            text += token.text
            if any(text.endswith(each) for each in stop):
                return Answer(tuple(tokens), text, "stop_sequence")
    text = "".join([token.text for token in tokens])
    if words < most:
        return Answer((*tokens, END), text, "eos_token")
    return Answer(tuple(tokens), text, "length")


def alternatives(token: Token, count: int) -> list[Token]:
    """The `count` likeliest tokens at the place of `token`: itself first, then its neighbours in the list."""
    others = [
        _TOKENS[(token.id - _FIRST_WORD_ID + offset) % _TOKEN_COUNT]._replace(logprob=token.logprob - offset)
        for offset in range(1, count)
    ]
    return [token, *others][:count]


def _start(prompt: str, seed: str) -> int:
    digest = hashlib.blake2b(f"{seed}|{prompt}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
