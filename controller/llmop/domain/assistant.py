"""An Assistant: a virtual model that answers from documents, and says which."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Assistant:
    """`top_k` passages go to the model, none whose similarity (0 to 1) is below `min_score`. "" for `instructions` and `not_found` = our
    own words.
    """

    name: str
    namespace: str
    model: str
    vector_stores: tuple[str, ...]
    instructions: str = ""
    top_k: int = 6
    min_score: float = 0.3
    not_found: str = ""

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that it asks and that its manifest names; vector stores know theirs."""
        return (self.model,)
