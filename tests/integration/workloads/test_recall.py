"""Whether the right passages are found: real embeddings of a real deployment, this project's own documentation, questions by hand."""

from __future__ import annotations

import html
import re
from collections import Counter
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from tests.e2e.installation import simulator
from tests.engines.minilm import embedding_model
from tests.integration.laptop import ROOT, Laptop
from tests.integration.workloads.documents import pdf

DOCS = ROOT / "docs"
QUESTIONS = ROOT / "tests" / "data" / "retrieval" / "questions.yaml"
# Pages that are tables above all have too much in them of one form, and nobody asks for them; decisions repeat what the pages say.
LEFT_OUT = (
    *("kinds.md", "llmctl.md", "llmop.md", "control-api.md", "runtimes.md"),
    *("measurements.md", "the-papers-experiment.md"),
)
AS_HTML = ("howto/containers.md", "explanation/store.md")
AS_PDF = ("howto/give-keys-to-users.md", "explanation/autoscaling.md")
FLOOR = 0.8  # what was seen stands in docs/explanation/measurements.md
LINES = 60  # of a page of a PDF
HEADING = re.compile(r"^(#{1,6}) (.+)$", re.MULTILINE)


@pytest.mark.parametrize("place", ["embedded", "pgvector"])
@pytest.mark.timeout(900)  # half a minute of computing, on a busy machine several
def test_recall_at_five(laptop: Laptop, place: str, request: pytest.FixtureRequest) -> None:
    questions: list[dict[str, Any]] = yaml.safe_load(QUESTIONS.read_text())
    assert len(questions) >= 40
    vectors = request.getfixturevalue("pgvector_rig").database("recall") if place == "pgvector" else ""
    laptop.up("--ephemeral", "--quiet", "--vectors", vectors)
    model = {"uri": f"file://{embedding_model()}"}
    embedder = simulator("minilm", model=model, runtime="llamacpp-embeddings", replicas=1)
    embedder["spec"]["args"] = ["--threads=1"]  # two that wait for each other on a busy machine take longer
    laptop.apply(embedder)
    laptop.wait_ready("minilm")
    port, key = laptop.gateway
    with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, timeout=60) as sdk:
        measure(sdk, questions, place)
    assert laptop.end() == 0


def measure(sdk: openai.OpenAI, questions: list[dict[str, Any]], place: str) -> None:
    store = sdk.vector_stores.create(extra_body={"embedding_model": "minilm"})
    pages = [
        path.relative_to(DOCS).as_posix()
        for path in sorted(DOCS.rglob("*.md"))
        if path.name not in LEFT_OUT and "decisions" not in path.parts
    ]
    assert {each["page"] for each in questions} <= set(pages)
    assert {*AS_HTML, *AS_PDF} <= {each["page"] for each in questions}
    for each in questions:
        for one in (each, each.get("or", {})):
            if "heading" in one:
                known = HEADING.findall((DOCS / one["page"]).read_text(encoding="utf-8"))
                assert one["heading"] in [text for _, text in known], one
    sections: dict[str, dict[str, set[int]]] = {}  # of PDFs: where each stands
    files = []
    for name in pages:
        text = (DOCS / name).read_text(encoding="utf-8")
        shown = name.replace("/", "_").removesuffix(".md")
        if name in AS_PDF:
            content, sections[name] = as_pdf(text)
            files.append((f"{shown}.pdf", content))
        elif name in AS_HTML:
            files.append((f"{shown}.html", as_html(text)))
        else:
            files.append((f"{shown}.md", text.encode()))
    batch = sdk.vector_stores.file_batches.upload_and_poll(store.id, files=files, poll_interval_ms=200)
    assert (batch.file_counts.completed, batch.file_counts.failed) == (len(pages), 0)

    hits, first, missed = Counter[str](), 0, []
    for each in questions:
        found = sdk.vector_stores.search(store.id, query=each["question"], max_num_results=5).data
        wanted = [each, *([each["or"]] if "or" in each else [])]
        fits = [any(is_in(one, want, sections) for want in wanted) for one in found]
        form = "html" if each["page"] in AS_HTML else "pdf" if each["page"] in AS_PDF else "md"
        hits[form] += any(fits)
        first += fits[0]
        if not any(fits):
            missed.append(each["question"])
    total = sum(hits.values())
    print(
        f"       {place}: recall@5 {total / len(questions):.3f}, recall@1 {first / len(questions):.3f}, {len(questions)} questions"
    )
    print(f"       hits by form: {dict(hits)}; missed: {missed}")
    assert total / len(questions) >= FLOOR
    assert hits["html"] >= 5
    assert hits["pdf"] >= 4


def is_in(found: Any, wanted: dict[str, str], sections: dict[str, dict[str, set[int]]]) -> bool:
    """Whether a passage is of the page, and of its section where one is named."""
    name, heading = wanted["page"], wanted.get("heading")
    if Path(found.filename).stem != name.replace("/", "_").removesuffix(".md"):
        return False
    if heading is None:
        return True
    if name in sections:
        return found.page in sections[name][heading]
    return any(plain(each) == plain(heading) for each in found.headings)


def plain(text: str) -> str:
    return text.replace("`", "")


def as_html(text: str) -> bytes:
    parts = ["<!doctype html><html><head><title>page</title><style>p {color: red}</style></head><body>"]
    for paragraph in re.split(r"\n\n+", text):
        heading = HEADING.match(paragraph)
        if heading is not None:
            level = len(heading[1])
            parts.append(f"<h{level}>{html.escape(heading[2])}</h{level}>")
            paragraph = paragraph[heading.end() :]
        tag = "pre" if "```" in paragraph else "p"
        parts.append(f"<{tag}>{html.escape(paragraph)}</{tag}>")
    return "\n".join(parts).encode()


def as_pdf(text: str) -> tuple[bytes, dict[str, set[int]]]:
    """Each section begins on a new page; and on which pages each is."""
    pages: list[str] = []
    sections: dict[str, set[int]] = {}
    for part in re.split(r"^(?=#{1,6} )", text, flags=re.MULTILINE):
        heading = HEADING.match(part)
        lines = [
            piece for line in part.split("\n") for piece in re.findall(r".{1,110}(?:\s|$)|^$", line) or [line]
        ]
        for start in range(0, len(lines), LINES):
            pages.append("\n".join(lines[start : start + LINES]))
            if heading is not None:
                sections.setdefault(heading[2], set()).add(len(pages))
    return pdf(pages), sections
