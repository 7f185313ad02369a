"""What Prometheus is told: the requests over HTTP, and what each pair's decoder has done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .pairs import ServedPairs

COUNTED = {
    "tokens": "Tokens decoded.",
    "from_base": "Tokens that base gave.",
    "prefilled": "Prompt tokens read, over both sides.",
    "reused": "Prompt tokens that were known already, over both sides.",
    "forwards": "Forwards of either model, without those that read prompts.",
    "drafted": "Drafted tokens that were decided on.",
    "accepted": "Drafted tokens that were right.",
    "admitted": "Samples that were given a slot.",
    "waited_s": "Seconds that samples waited for their slots, added up.",
    "busy_s": "Seconds that the decoder has worked.",
    "restarts": "How often memory ran out and a smaller batch went on.",
}
"""Numbers of `engines.metrics.Metrics` that only grow."""

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/metrics", "/")


class DecoderCollector(Collector):
    """Reads the decoders' own numbers when it is asked."""

    def __init__(self, pairs: ServedPairs) -> None:
        self._pairs = pairs

    def collect(self) -> Iterator[Metric]:
        """Return the numbers of all decoders that are open."""
        decoders = [(each.name, each.decoder) for each in self._pairs if each.decoder is not None]
        for name, text in COUNTED.items():
            family = CounterMetricFamily(
                f"baco_{name.replace('_s', '_seconds')}", text, None, ["pair"]
            )
            for pair, decoder in decoders:
                family.add_metric([pair], getattr(decoder.metrics, name))
            yield family
        for name in ("running", "waiting"):
            gauge = GaugeMetricFamily(f"baco_{name}", f"Samples that are {name}.", None, ["pair"])
            for pair, decoder in decoders:
                gauge.add_metric([pair], getattr(decoder, name))
            yield gauge


class ServerMetrics:
    """Counts requests, in a registry of its own.

    Args:
        pairs: The pairs that are served.
    """

    def __init__(self, pairs: ServedPairs) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(DecoderCollector(pairs))
        self._requests = Counter(
            "baco_http_requests", "Requests.", ["endpoint", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "baco_http_request_seconds",
            "Seconds from a request to the end of its answer.",
            ["endpoint"],
            registry=self.registry,
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
        )
        self.first_token = Histogram(
            "baco_first_token_seconds",
            "Seconds from a request to its first token.",
            ["pair"],
            registry=self.registry,
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
        )

    def count(self, scope: Mapping[str, Any], status: int, seconds: float) -> None:
        """Count a request that has been answered."""
        path = scope["path"]
        endpoint = path if path in ENDPOINTS else "other"  # callers' own paths are without number
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
