"""Vector stores and the documents in them as values, and as OpenAI's objects. Pure.

Fields and words are those of OpenAI's vector stores (https://platform.openai.com/docs/api-reference/vector-stores).
"""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, NamedTuple

from llmop.workloads.retrieval.chunks import Cut


class Status(enum.StrEnum):
    """How far a document is."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Problem(NamedTuple):
    """Why a document failed. `code` is OpenAI's word: server_error, unsupported_file or invalid_file."""

    code: str
    message: str


Counts = Mapping[Status, int]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    """`number` is the order of creation, `owner` the hash of the key it was made with, `model` the one that embeds its passages.
    Times are in epoch seconds. `dimension` is how many numbers a vector has; 0 before the first.
    """

    number: int
    id: str
    owner: str
    name: str
    model: str
    created_at: float
    active_at: float
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    dimension: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A file in a store. `cut` None = as we do by ourselves. `size` is what its passages take, in bytes; `batch` the batch it came with,
    "" for none.
    """

    number: int
    store: int
    store_id: str
    owner: str
    model: str
    file: str
    filename: str
    created_at: float
    status: Status = Status.IN_PROGRESS
    problem: Problem | None = None
    attributes: Mapping[str, str | float | bool] = dataclasses.field(default_factory=dict)
    cut: Cut | None = None
    size: int = 0
    batch: str = ""


class Batch(NamedTuple):
    """Files that were put into a store together."""

    id: str
    created_at: float


class Found(NamedTuple):
    """A passage that fits. `score` is the similarity of its vector to that of the question, from 0 to 1."""

    file: str
    filename: str
    attributes: Mapping[str, str | float | bool]
    page: int | None
    headings: tuple[str, ...]
    text: str
    score: float


def describe_store(store: Store, counts: Counts, size: int) -> dict[str, Any]:
    return {
        "id": store.id,
        "object": "vector_store",
        "created_at": int(store.created_at),
        "name": store.name,
        "usage_bytes": size,
        "file_counts": _counts(counts),
        "status": "in_progress" if counts.get(Status.IN_PROGRESS) else "completed",
        "expires_after": None,
        "expires_at": None,
        "last_active_at": int(store.active_at),
        "metadata": dict(store.metadata) or None,
        "embedding_model": store.model,
    }


def describe_document(document: Document, waiting: str = "") -> dict[str, Any]:
    """`waiting` says what holds it up at the moment, which is a field of our own."""
    problem, cut = document.problem, document.cut or Cut()
    shown = {
        "id": document.file,
        "object": "vector_store.file",
        "created_at": int(document.created_at),
        "usage_bytes": document.size,
        "vector_store_id": document.store_id,
        "status": document.status.value,
        "last_error": None if problem is None else {"code": problem.code, "message": problem.message},
        "chunking_strategy": {
            "type": "static",
            "static": {"max_chunk_size_tokens": cut.size, "chunk_overlap_tokens": cut.overlap},
        },
        "attributes": dict(document.attributes),
    }
    is_held_up = waiting and document.status is Status.IN_PROGRESS
    return shown | ({"llmop": {"waiting": waiting}} if is_held_up else {})


def describe_batch(batch: Batch, store: Store, counts: Counts) -> dict[str, Any]:
    status = "completed"
    if counts.get(Status.IN_PROGRESS):
        status = "in_progress"
    elif counts.get(Status.CANCELLED):
        status = "cancelled"
    return {
        "id": batch.id,
        "object": "vector_store.files_batch",
        "created_at": int(batch.created_at),
        "vector_store_id": store.id,
        "status": status,
        "file_counts": _counts(counts),
    }


def describe_found(found: Found) -> dict[str, Any]:
    """`page` and `headings` are fields of our own."""
    return {
        "file_id": found.file,
        "filename": found.filename,
        "score": round(found.score, 4),
        "attributes": dict(found.attributes),
        "content": [{"type": "text", "text": found.text}],
        "page": found.page,
        "headings": list(found.headings),
    }


def _counts(counts: Counts) -> dict[str, int]:
    return {status.value: counts.get(status, 0) for status in Status} | {"total": sum(counts.values())}
