"""Prompts of a wished length. Pure."""

import itertools
import random

# Short words that the usual vocabularies have as one token each, with the blank before them; how many tokens the server counts is in the
# report.
_WORD_LIST = (
    "the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you were all "
    "her she there would their we him been has when who will no more if out so up said what its about than into them can only other "
    "time new some could these two may first then do any like my now over such our man me even most made after also did many off before "
    "must well back through years where much your way down should because long each just state those people too little good world make "
    "very year still see own work men day get here old life both between being under three never know same last another while us might "
    "great go come since against right came take used use house few home small place found part water high school war"
)
_WORDS = tuple(_WORD_LIST.split())
_OWN = 8  # words


class Prompts:
    """Texts of up to `most` tokens. The same seed gives the same ones.

    Each begins with words of its own, so that what an engine has kept of other prompts is of no use to it; what follows is the same
    for all, because making a long text takes longer than a client that measures can stand still.
    """

    def __init__(self, seed: str, most: int) -> None:
        self._chance = random.Random(seed)
        words = self._chance.choices(_WORDS, k=most)
        self._text = " ".join(words) + " "
        self._ends = list(itertools.accumulate((len(word) + 1 for word in words), initial=0))

    def make(self, tokens: int) -> str:
        """About `tokens` tokens, another text every time."""
        own = self._chance.choices(_WORDS, k=min(_OWN, tokens))
        rest = self._text[: self._ends[tokens - len(own)]]
        return f"{' '.join(own)} {rest}".rstrip()
