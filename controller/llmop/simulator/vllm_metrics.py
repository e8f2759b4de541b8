"""vLLM's series, with its types, labels and buckets (vllm/v1/metrics/loggers.py, buckets.py).

All are there from the start, as in vLLM. Those of what the simulator does not do (caches, preemption, sleep) stay as they begin; the
`_created` series, which prometheus_client adds, are left out.
"""

from __future__ import annotations

from .observer import Load
from .options import Options
from .physics import Work, WorkKind
from .prometheus import Counter, Family, Gauge, Histogram, label, python_number, text
from .request import Generation, Timing, ValidRequest

_LATENCY = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
_FIRST_TOKEN = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0,
    2560.0,
)  # fmt: skip
_BETWEEN_TOKENS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
_PER_STEP = tuple(float(2**power) for power in (0, *range(3, 15)))
_CHOICES = (1.0, 2.0, 5.0, 10.0, 20.0)
_PREEMPTIONS = (1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0)
_REASONS = ("stop", "length", "abort", "error", "repetition")
_CAUSES = {"dropped": "abort", "generation": "error", "incomplete": "error"}


def tokens_up_to(most: int) -> tuple[float, ...]:
    """1, 2, 5, 10, 20, ... not beyond `most`."""
    return tuple(
        float(mantissa * 10**power)
        for power in range(len(str(most)))
        for mantissa in (1, 2, 5)
        if mantissa * 10**power <= most
    )


class VllmMetrics:
    """An Observer (observer.py)."""

    def __init__(self, options: Options) -> None:
        self._model = label(model_name=options.served_model_name)
        self._labels = label(engine="0", model_name=options.served_model_name)
        counts = tokens_up_to(options.max_total_tokens)

        def gauge(name: str, help_text: str) -> Gauge:
            return Gauge(f"vllm:{name}", help_text)

        def counter(name: str, help_text: str, **values: tuple[str, ...]) -> Counter:
            return Counter(f"vllm:{name}_total", help_text, self._series(**values))

        def histogram(name: str, help_text: str, bounds: tuple[float, ...]) -> Histogram:
            return Histogram(f"vllm:{name}", help_text, bounds, python_number, (self._labels,))

        self._running = gauge("num_requests_running", "Requests in the running batch")
        self._waiting = gauge("num_requests_waiting", "Requests that wait for memory or for their turn")
        self._waiting_by_reason = gauge("num_requests_waiting_by_reason", "The same, by reason")
        self._sleep = gauge("engine_sleep_state", "Whether the engine is awake")
        self._usage = gauge("kv_cache_usage_perc", "Share of the memory that is reserved; 1 is all of it")
        self._prompt_tokens = counter("prompt_tokens", "Tokens of prompts that were read")
        self._by_source = counter(
            "prompt_tokens_by_source",
            "The same, by where they came from",
            source=("local_compute", "local_cache_hit", "external_kv_transfer"),
        )
        self._generation_tokens = counter("generation_tokens", "Tokens that were generated")
        self._success = counter("request_success", "Requests that ended, by reason", finished_reason=_REASONS)
        self._rejections = Counter(
            "vllm:admission_rejections_total",
            "Requests refused because of a limit of the queue",
            [
                f'{self._model},reason="{reason}"'
                for reason in ("max_num_queued_reqs", "max_num_queued_tokens")
            ],
        )
        self._request_prompt = histogram("request_prompt_tokens", "Tokens per prompt", counts)
        self._request_generation = histogram("request_generation_tokens", "Tokens per answer", counts)
        self._per_step = histogram("iteration_tokens_total", "Tokens per step", _PER_STEP)
        self._request_most = histogram(
            "request_max_num_generation_tokens", "Most tokens of the choices of a request", counts
        )
        self._choices = histogram("request_params_n", "Choices per request", _CHOICES)
        self._max_tokens = histogram(
            "request_params_max_tokens", "Most tokens a request may generate", counts
        )
        self._first_token = histogram(
            "time_to_first_token_seconds", "Seconds to the first token", _FIRST_TOKEN
        )
        self._between = histogram(
            "inter_token_latency_seconds", "Seconds between two tokens", _BETWEEN_TOKENS
        )
        self._per_token = histogram(
            "request_time_per_output_token_seconds",
            "Mean seconds between tokens of a request",
            _BETWEEN_TOKENS,
        )
        self._whole = histogram("e2e_request_latency_seconds", "Seconds from arrival to the end", _LATENCY)
        self._queue = histogram("request_queue_time_seconds", "Seconds of waiting", _LATENCY)
        self._inference = histogram(
            "request_inference_time_seconds", "Seconds from prefill to the end", _LATENCY
        )
        self._prefill = histogram("request_prefill_time_seconds", "Seconds of prefill", _LATENCY)
        self._decode = histogram("request_decode_time_seconds", "Seconds of decoding", _LATENCY)
        self._preempted = histogram(
            "request_num_preemptions", "How often a request was preempted", _PREEMPTIONS
        )
        self._computed = histogram(
            "request_prefill_kv_computed_tokens", "Tokens of a prompt that were not in a cache", counts
        )
        cached = ("device", "host", "p2p", "disk", "external_unspecified")
        self._families: tuple[Family, ...] = (
            self._running,
            self._waiting,
            self._waiting_by_reason,
            self._sleep,
            self._usage,
            counter("prefix_cache_queries", "Tokens looked up in the prefix cache"),
            counter("prefix_cache_hits", "Tokens found there"),
            counter("external_prefix_cache_queries", "Tokens looked up in a cache elsewhere"),
            counter("external_prefix_cache_hits", "Tokens found there"),
            counter("mm_cache_queries", "Items looked up in the cache of images and sounds"),
            counter("mm_cache_hits", "Items found there"),
            counter("num_preemptions", "How often a request was preempted"),
            self._prompt_tokens,
            self._by_source,
            counter("prompt_tokens_cached", "Tokens of prompts that came out of a cache"),
            counter("prompt_tokens_cached_by_source", "The same, by cache", source=cached),
            self._generation_tokens,
            self._success,
            self._rejections,
            self._request_prompt,
            self._request_generation,
            self._per_step,
            self._request_most,
            self._choices,
            self._max_tokens,
            self._first_token,
            self._between,
            self._per_token,
            self._whole,
            self._queue,
            self._inference,
            self._prefill,
            self._decode,
            self._preempted,
            self._computed,
        )

    def arrived(self) -> None:
        """vLLM counts requests when they end."""

    def refused(self, cause: str) -> None:
        if cause == "overloaded":
            self._rejections.add(f'{self._model},reason="max_num_queued_reqs"')
        elif cause in _CAUSES:
            self._success.add(self._with(finished_reason=_CAUSES[cause]))

    def queued(self, request: ValidRequest) -> None:
        """vLLM counts prompts when they have been read."""

    def began(self, work: Work, sequences: int, prompt_tokens: int, *, joining: bool) -> None:
        """vLLM counts steps when they are done."""

    def finished(self, work: Work, sequences: int) -> None:
        if work.kind is WorkKind.DECODE and sequences:
            self._per_step.observe(sequences, self._labels, work.tokens)

    def broke(self, kind: WorkKind) -> None:
        """A request that fails is counted where it ends."""

    def produced(self, generation: Generation, tokens: int, now: float) -> None:
        if not tokens:
            return
        self._generation_tokens.add(self._labels, tokens)
        if generation.produced:
            self._between.observe((now - generation.last_at) / tokens, self._labels, tokens)
            return
        prompt = generation.request.prompt_tokens
        self._prompt_tokens.add(self._labels, prompt)
        self._by_source.add(self._with(source="local_compute"), prompt)
        self._per_step.observe(prompt + 1, self._labels)
        self._first_token.observe(now - generation.queued_at, self._labels)
        if tokens > 1:
            self._between.observe(0.0, self._labels, tokens - 1)

    def answered(self, generation: Generation, timing: Timing) -> None:
        labels = self._labels
        given = len(generation.answer.tokens)
        reason = "length" if generation.answer.finish_reason == "length" else "stop"
        decode = generation.ended_at - generation.first_at
        self._success.add(self._with(finished_reason=reason))
        self._request_prompt.observe(generation.request.prompt_tokens, labels)
        self._computed.observe(generation.request.prompt_tokens, labels)
        self._request_generation.observe(given, labels)
        self._request_most.observe(given, labels)
        self._choices.observe(1, labels)
        self._max_tokens.observe(generation.request.most, labels)
        self._whole.observe(timing.total, labels)
        self._queue.observe(timing.queue, labels)
        self._inference.observe(timing.inference, labels)
        self._prefill.observe(generation.first_at - generation.started_at, labels)
        self._decode.observe(decode, labels)
        self._preempted.observe(0, labels)
        if given > 1:
            self._per_token.observe(decode / (given - 1), labels)

    def render(self, load: Load) -> str:
        self._running.set(load.running, self._labels)
        self._waiting.set(load.waiting, self._labels)
        self._waiting_by_reason.set(load.waiting, self._with(reason="capacity"))
        self._waiting_by_reason.set(0, self._with(reason="deferred"))
        for state in ("awake", "weights_offloaded", "discard_all"):
            self._sleep.set(state == "awake", self._with(sleep_state=state))
        self._usage.set(load.reserved_tokens / load.kv_tokens, self._labels)
        return text(self._families)

    def _with(self, **more: str) -> str:
        return f"{self._labels},{label(**more)}"

    def _series(self, **values: tuple[str, ...]) -> list[str]:
        """One for each value of the one label, or the one without."""
        for name, each in values.items():
            return [self._with(**{name: value}) for value in each]
        return [self._labels]
