"""How several orders of passages become one: reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009). Pure."""

import re
import unicodedata
from collections.abc import Sequence

# Weights that were best on our own documentation; see the measurements.
BY_VECTOR, BY_WORDS = 1.0, 0.5
_FLATTEN = 60.0  # of the paper: how little the first places stand out

_WORD = re.compile(r"\w+")
_PLAIN = re.compile(r"[^\W_]+")


def words(text: str, most: int) -> list[str]:
    """The words of a question, each once; letters and digits only, so that nothing of it means anything to a query."""
    return list(dict.fromkeys(_WORD.findall(text.lower())))[:most]


def plain_words(text: str) -> list[str]:
    """Its words in their order, letters and digits only, without what stands above or below a letter: as SQLite's tokenizer `unicode61`
    cuts them (https://www.sqlite.org/fts5.html#unicode61_tokenizer).
    """
    bare = "".join(each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each))
    return _PLAIN.findall(bare.lower())


def fuse(orders: Sequence[tuple[float, Sequence[int]]]) -> list[int]:
    """`orders` are weights and passages, the best first. Equal ones stay in the order in which they are first named."""
    scores: dict[int, float] = {}
    for weight, order in orders:
        for place, passage in enumerate(order, 1):
            scores[passage] = scores.get(passage, 0.0) + weight / (_FLATTEN + place)
    return sorted(scores, key=lambda each: -scores[each])
