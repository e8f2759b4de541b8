"""Assistant: a virtual model that answers from the documents of vector stores."""

import re
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from llmop.domain import attributes
from llmop.manifest.schema_v1alpha1 import fields

Text = Annotated[str, Field(max_length=16_384)]
VectorStore = Annotated[
    str,
    fields.matching(
        re.compile(r"vs_[a-z0-9]{1,60}"),
        "the id of a vector store, as POST /v1/vector_stores gives it: vs_...",
    ),
]


class AssistantSpec(fields.Fields):
    """Finds passages in vector stores, gives them to a model with the question, and says which documents the answer stands on."""

    model: fields.ModelName = Field(
        description="Who writes the answer: a model as clients name it, that of a deployment. No tribunal, no assistant."
    )
    vector_stores: list[VectorStore] = Field(
        min_length=1,
        max_length=8,
        description="Ids of the vector stores whose documents it knows. Whoever may use the assistant may read them.",
    )
    instructions: Text | None = Field(
        default=None, description="What the model is told beside the passages: whom it serves, in what tone."
    )
    top_k: int = Field(default=6, ge=1, le=20, description="Passages that the model gets at most.")
    min_score: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="How similar a passage must be to the question to count. Where none is, the answer is notFound.",
    )
    filters: dict[str, Any] | None = Field(
        default=None,
        description="Which documents of the stores count, by their attributes: a filter as searches of vector stores take it.",
    )
    not_found: Text | None = Field(
        default=None, description="The answer when no passage fits; the model is not asked then."
    )

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        problems = [
            (f"vectorStores[{index}]", f"{name!r} stands there twice; remove one")
            for index, name in enumerate(self.vector_stores)
            if name in self.vector_stores[:index]
        ]
        try:
            if self.filters is not None:
                attributes.read(self.filters)
        except attributes.BadFilter as error:
            problems.append((f"filters{error.path}", str(error)))
        if problems:
            raise fields.invalid_below(*problems)
        return self
