"""Counters, gauges and histograms under TGI's names, and their Prometheus text form.

As in TGI a counter or histogram appears with its first event: absent means 0. Gauges are always there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

_SECONDS = (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_TOKENS = tuple(float(2**power) for power in range(17))

_HELP = {
    "tgi_request_count": "Requests that arrived; a chat counts twice, a completion once more than its prompts",
    "tgi_request_success": "Requests that were answered",
    "tgi_request_failure": "Requests that were not answered, by cause",
    "tgi_batch_inference_count": "Steps begun, by method",
    "tgi_batch_inference_success": "Steps done, by method",
    "tgi_queue_size": "Requests that wait for memory or for their turn",
    "tgi_batch_current_size": "Requests in the running batch",
    "tgi_batch_current_max_tokens": "Tokens reserved by the running batch",
    "tgi_batch_max_total_tokens": "Tokens that fit into memory",
    "tgi_request_duration": "Seconds from arrival to the last token",
    "tgi_request_validation_duration": "Seconds of checking a request",
    "tgi_request_queue_duration": "Seconds of waiting before prefill",
    "tgi_request_inference_duration": "Seconds from prefill to the last token",
    "tgi_request_mean_time_per_token_duration": "Seconds of inference per token",
    "tgi_request_generated_tokens": "Tokens per answer",
    "tgi_request_input_length": "Tokens per prompt",
    "tgi_request_max_new_tokens": "Most tokens a request may generate",
}
_IN_TOKENS = ("tgi_request_generated_tokens", "tgi_request_input_length", "tgi_request_max_new_tokens")


class _Histogram:
    __slots__ = ("bounds", "buckets", "count", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.count = 0
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.count += 1
        self.total += value


class Metrics:
    """All series of one simulator."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, str], int] = {}
        self._histograms: dict[str, _Histogram] = {}

    def count(self, name: str, label: str = "") -> None:
        """Add one. `label` is a Prometheus label pair such as `err="dropped"`, or empty."""
        key = (name, label)
        self._counters[key] = self._counters.get(key, 0) + 1

    def failed(self, cause: str) -> None:
        """Count one failed request; `cause` is overloaded, validation, generation, incomplete or dropped."""
        self.count("tgi_request_failure", f'err="{cause}"')

    def observe(self, name: str, value: float) -> None:
        """Add a value, in seconds or tokens, to a histogram."""
        histogram = self._histograms.get(name)
        if histogram is None:
            histogram = self._histograms[name] = _Histogram(_TOKENS if name in _IN_TOKENS else _SECONDS)
        histogram.observe(value)

    def render(self, gauges: Mapping[str, float]) -> str:
        """The text of GET /metrics; `gauges` are read by the caller at that moment."""
        lines: list[str] = []
        for name in sorted({name for name, _ in self._counters}):
            lines += _head(name, "counter")
            for (counter, label), value in sorted(self._counters.items()):
                if counter == name:
                    lines.append(f"{name}{{{label}}} {value}" if label else f"{name} {value}")
        for name, level in gauges.items():
            lines += [*_head(name, "gauge"), f"{name} {level:.17g}"]
        for name, histogram in sorted(self._histograms.items()):
            lines += _head(name, "histogram")
            below = 0
            for bound, amount in zip(histogram.bounds, histogram.buckets, strict=False):
                below += amount
                lines.append(f'{name}_bucket{{le="{bound:g}"}} {below}')
            lines.append(f'{name}_bucket{{le="+Inf"}} {histogram.count}')
            lines += [f"{name}_sum {histogram.total!r}", f"{name}_count {histogram.count}"]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str) -> list[str]:
    return [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} {kind}"]
