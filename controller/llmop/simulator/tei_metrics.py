"""Text Embeddings Inference's series, with its types, labels and buckets (router/src/prometheus.rs, core/src/queue.rs, infer.rs).

As in TEI a series appears with its first event: absent means 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from .observer import Load
from .options import Options
from .physics import Work, WorkKind
from .prometheus import Counter, Family, Gauge, Histogram, rust_number, text
from .request import Generation, Timing, ValidRequest

# From 10 us on, each bucket is half as wide again as the one before.
DURATIONS = tuple(0.00001 * 1.5**power for power in range(1, 36))
_CAUSES = {"generation": "inference", "incomplete": "inference"}


class TeiMetrics:
    """An Observer (observer.py); routes count whole requests, the engine their texts."""

    def __init__(self, options: Options) -> None:
        def histogram(name: str, help_text: str, bounds: Sequence[float] = DURATIONS) -> Histogram:
            return Histogram(f"te_{name}", help_text, bounds, rust_number)

        self._count = Counter("te_request_count", "Requests that arrived, by method: one text or several")
        self._success = Counter("te_request_success", "Requests that were answered, by method")
        self._failure = Counter("te_request_failure", "Texts that were not answered, by cause")
        self._embed_count = Counter("te_embed_count", "Texts that arrived")
        self._embed_success = Counter("te_embed_success", "Texts that were answered")
        self._queue_size = Gauge("te_queue_size", "Texts that wait")
        self._request = [
            histogram("request_duration", "Seconds of a request"),
            histogram("request_tokenization_duration", "Mean seconds of making tokens"),
            histogram("request_queue_duration", "Mean seconds of waiting"),
            histogram("request_inference_duration", "Mean seconds in the model"),
        ]
        self._embed = [
            histogram("embed_duration", "Seconds of a text"),
            histogram("embed_tokenization_duration", "Seconds of making tokens"),
            histogram("embed_queue_duration", "Seconds of waiting"),
            histogram("embed_inference_duration", "Seconds in the model"),
        ]
        self._length = histogram(
            "request_input_length",
            "Tokens per text",
            [2.0**power for power in range(20) if 2**power <= options.max_input_tokens],
        )
        self._batch = histogram("batch_next_size", "Texts in a batch", [2.0**power for power in range(13)])
        self._batch_tokens = histogram(
            "batch_next_tokens", "Tokens in a batch", [2.0**power for power in range(21)]
        )
        self._has_queued = False
        self._families: tuple[Family, ...] = (
            self._count,
            self._success,
            self._failure,
            self._embed_count,
            self._embed_success,
            self._queue_size,
            *self._request,
            *self._embed,
            self._length,
            self._batch,
            self._batch_tokens,
        )

    def requested(self, *, single: bool) -> None:
        """A request with one text, or with a list of them."""
        self._count.add(_method(single=single))

    def succeeded(self, timings: Sequence[Timing], *, single: bool) -> None:
        """A request was answered; `timings` are those of its texts."""
        self._success.add(_method(single=single))
        amounts = [max(timing.total for timing in timings), *_mean(timings)]
        for histogram, amount in zip(self._request, amounts, strict=True):
            histogram.observe(amount)

    def arrived(self) -> None:
        self._embed_count.add()

    def refused(self, cause: str) -> None:
        self._failure.add(f'err="{_CAUSES.get(cause, cause)}"')

    def queued(self, request: ValidRequest) -> None:
        self._has_queued = True
        self._length.observe(request.prompt_tokens)

    def began(self, work: Work, sequences: int, prompt_tokens: int, *, joining: bool) -> None:
        self._batch.observe(sequences)
        self._batch_tokens.observe(prompt_tokens)

    def finished(self, work: Work, sequences: int) -> None:
        """A batch is counted when it begins."""

    def broke(self, kind: WorkKind) -> None:
        """A text that fails is counted where it is refused."""

    def produced(self, generation: Generation, tokens: int, now: float) -> None:
        """An embedding has no tokens of its own."""

    def answered(self, generation: Generation, timing: Timing) -> None:
        self._embed_success.add()
        amounts = [timing.total, *_mean([timing])]
        for histogram, amount in zip(self._embed, amounts, strict=True):
            histogram.observe(amount)

    def render(self, load: Load) -> str:
        if self._has_queued:
            self._queue_size.set(load.waiting)
        return text(self._families)


def _mean(timings: Sequence[Timing]) -> list[float]:
    """Tokenization, queue, inference."""
    count = len(timings)
    return [
        sum(timing.validation for timing in timings) / count,
        sum(timing.queue for timing in timings) / count,
        sum(timing.inference for timing in timings) / count,
    ]


def _method(*, single: bool) -> str:
    return f'method="{"single" if single else "batch"}"'
