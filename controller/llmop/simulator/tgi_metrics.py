"""Counters, gauges and histograms under TGI's names, with its types and buckets (router/src/server.rs, backends/v3/src/).

As in TGI a series appears with its first event: absent means 0.
"""

from __future__ import annotations

from .observer import Load
from .options import Options
from .physics import Work, WorkKind
from .prometheus import ConstantSummary, Counter, Family, Gauge, Histogram, rust_number, text
from .request import Generation, Timing, ValidRequest

# From 0.1 ms on, each bucket is half as wide again as the one before.
DURATIONS = tuple(0.0001 * 1.5**power for power in range(1, 36))
BATCH_SIZES = tuple(float(size) for size in range(1, 1025))
# What metrics-exporter-prometheus shows of a histogram without buckets.
_QUANTILES = (0, 0.5, 0.9, 0.95, 0.99, 0.999, 1)
_METHOD = {kind: f'method="{kind.value}"' for kind in WorkKind}


class TgiMetrics:
    """An Observer (observer.py)."""

    def __init__(self, options: Options) -> None:
        hundredths = range(1, 101)
        inputs = [options.max_input_tokens / 100 * part for part in hundredths]
        totals = [options.max_total_tokens / 100 * part for part in hundredths]

        def histogram(name: str, help_text: str, bounds: tuple[float, ...] = DURATIONS) -> Histogram:
            return Histogram(name, help_text, bounds, rust_number)

        self._count = Counter(
            "tgi_request_count",
            "Requests that arrived; a chat counts twice, a completion once more than its prompts",
        )
        self._success = Counter("tgi_request_success", "Requests that were answered")
        self._failure = Counter("tgi_request_failure", "Requests that were not answered, by cause")
        self._inference_count = Counter("tgi_batch_inference_count", "Steps begun, by method")
        self._inference_success = Counter("tgi_batch_inference_success", "Steps done, by method")
        self._inference_failure = Counter("tgi_batch_inference_failure", "Steps that failed, by method")
        self._concat = Counter("tgi_batch_concat", "Batches that joined a running one, by reason")
        self._queue_size = Gauge("tgi_queue_size", "Requests that wait for memory or for their turn")
        self._current_size = Gauge("tgi_batch_current_size", "Requests in the running batch")
        self._current_tokens = Gauge("tgi_batch_current_max_tokens", "Tokens reserved by the running batch")
        self._max_tokens = Gauge("tgi_batch_max_total_tokens", "Tokens that fit into memory")
        self._duration = histogram("tgi_request_duration", "Seconds from arrival to the last token")
        self._validation = histogram("tgi_request_validation_duration", "Seconds of checking a request")
        self._queue = histogram("tgi_request_queue_duration", "Seconds of waiting before prefill")
        self._inference = histogram(
            "tgi_request_inference_duration", "Seconds from prefill to the last token"
        )
        self._per_token = histogram(
            "tgi_request_mean_time_per_token_duration", "Seconds of inference per token"
        )
        self._generated = histogram("tgi_request_generated_tokens", "Tokens per answer", tuple(totals))
        self._input_length = histogram("tgi_request_input_length", "Tokens per prompt", tuple(inputs))
        self._new_tokens = histogram(
            "tgi_request_max_new_tokens", "Most tokens a request may generate", tuple(totals)
        )
        self._skipped = ConstantSummary(
            "tgi_request_skipped_tokens",
            "Tokens per step beyond the first; there is no speculation",
            _QUANTILES,
            0,
        )
        self._next_size = histogram("tgi_batch_next_size", "Requests in a new batch", BATCH_SIZES)
        self._forward = histogram("tgi_batch_forward_duration", "Seconds in the model, by method")
        self._decode = histogram("tgi_batch_decode_duration", "Seconds of making text of tokens, by method")
        self._filter = histogram(
            "tgi_batch_filter_duration", "Seconds of taking out what has ended, by method"
        )
        self._batch_inference = histogram("tgi_batch_inference_duration", "Seconds of a step, by method")
        self._batch_concat = histogram("tgi_batch_concat_duration", "Seconds of joining batches, by method")
        self._max_tokens.set(options.kv_tokens)
        self._has_queued = False
        self._has_run = False
        self._families: tuple[Family, ...] = (
            self._count,
            self._success,
            self._failure,
            self._inference_count,
            self._inference_success,
            self._inference_failure,
            self._concat,
            self._queue_size,
            self._current_size,
            self._current_tokens,
            self._max_tokens,
            self._duration,
            self._validation,
            self._queue,
            self._inference,
            self._per_token,
            self._generated,
            self._input_length,
            self._new_tokens,
            self._skipped,
            self._next_size,
            self._forward,
            self._decode,
            self._filter,
            self._batch_inference,
            self._batch_concat,
        )

    def arrived(self) -> None:
        self._count.add()

    def refused(self, cause: str) -> None:
        self._failure.add(f'err="{cause}"')

    def queued(self, request: ValidRequest) -> None:
        self._has_queued = True
        self._input_length.observe(request.prompt_tokens)
        self._new_tokens.observe(request.most)

    def began(self, work: Work, sequences: int, prompt_tokens: int, *, joining: bool) -> None:
        self._has_run = True
        self._inference_count.add(_METHOD[work.kind])
        if work.kind is WorkKind.PREFILL:
            self._next_size.observe(sequences)
            if joining:
                self._concat.add('reason="chunking"')
                # TGI names the method of the step that follows, also for this one.
                self._batch_concat.observe(0.0, _METHOD[WorkKind.DECODE])

    def finished(self, work: Work, sequences: int) -> None:
        method = _METHOD[work.kind]
        self._inference_success.add(method)
        self._forward.observe(work.seconds, method)
        self._decode.observe(0.0, method)
        self._filter.observe(0.0, method)
        self._batch_inference.observe(work.seconds, method)

    def broke(self, kind: WorkKind) -> None:
        self._inference_failure.add(_METHOD[kind])

    def produced(self, generation: Generation, tokens: int, now: float) -> None:
        self._skipped.observe(tokens)

    def answered(self, generation: Generation, timing: Timing) -> None:
        self._success.add()
        self._duration.observe(timing.total)
        self._validation.observe(timing.validation)
        self._queue.observe(timing.queue)
        self._inference.observe(timing.inference)
        self._per_token.observe(timing.per_token)
        self._generated.observe(len(generation.answer.tokens))

    def render(self, load: Load) -> str:
        if self._has_queued:
            self._queue_size.set(load.waiting)
        if self._has_run:
            self._current_size.set(load.running)
            self._current_tokens.set(load.reserved_tokens)
        return text(self._families)
