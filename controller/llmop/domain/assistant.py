"""An Assistant: a virtual model that answers from documents, and says which."""

import dataclasses

from llmop.domain.attributes import Filter


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Assistant:
    """`top_k` passages go to the model, none whose similarity (0 to 1) is below `min_score`, and none of a document that does not fit
    `filters`; None = of all. "" for `instructions` and `not_found` = our
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
    filters: Filter | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that it asks and that its manifest names; vector stores know theirs."""
        return (self.model,)
