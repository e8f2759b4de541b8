"""Did you mean ...?"""

import difflib
from collections.abc import Iterable


def closest(word: str, known: Iterable[str]) -> str:
    """The one of `known` that was probably meant, or ""; case, `_` and `-` do not count."""
    folded = {fold(each): each for each in sorted(known)}
    near = difflib.get_close_matches(fold(word), folded, n=1, cutoff=0.7)
    return folded[near[0]] if near else ""


def hint(word: str, known: Iterable[str]) -> str:
    """`; did you mean "replicas"?`, or the known words when nothing is near and they are few."""
    words = sorted(known)
    near = closest(word, words)
    if near:
        return f'; did you mean "{near}"?'
    if words and len(words) <= 12:
        return "; known: " + ", ".join(words)
    return ""


def fold(word: str) -> str:
    """`word` without what people get wrong first: max_surge and maxSurge are one."""
    return word.lower().replace("_", "").replace("-", "")
