"""Counters of a server for Prometheus, with TensorFlow Serving's names."""

import os
from typing import Any

__all__ = ["Metrics"]

_BUCKETS = [10 * 1.8**power for power in range(33)]  # microseconds, as TensorFlow Serving has them


class Metrics:
    """Counters of one process; of all workers where `PROMETHEUS_MULTIPROC_DIR` names their folder."""

    def __init__(self) -> None:
        import prometheus_client

        self._registry = prometheus_client.CollectorRegistry()
        several = {"multiprocess_mode": "sum"} if "PROMETHEUS_MULTIPROC_DIR" in os.environ else {}
        # TensorFlow Serving's counters lack the `_total` that the client gives to its own.
        self._requests = prometheus_client.Gauge(
            ":tensorflow:serving:request_count",
            "The total number of requests.",
            ["model_name", "status"],
            registry=self._registry,
            **several,  # type: ignore[arg-type]
        )
        self._latency = prometheus_client.Histogram(
            ":tensorflow:serving:request_latency",
            "Microseconds from a request to its answer.",
            ["model_name", "API", "entrypoint"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._batches = prometheus_client.Histogram(
            ":tensorflow:serving:batching_session:processed_batch_size",
            "Rows that were run together.",
            ["model_name"],
            buckets=[2**power for power in range(15)],
            registry=self._registry,
        )
        self._children: dict[Any, Any] = {}

    def request(self, model: str, api: str, entrypoint: str, status: str, seconds: float) -> None:
        """Counts a request: what it asked, whether by REST or gRPC, and how it ended."""
        self._child(self._requests, model, status).inc()
        self._child(self._latency, model, api, entrypoint).observe(seconds * 1e6)

    def batch(self, model: str, rows: int) -> None:
        """Counts a run of a model."""
        self._child(self._batches, model).observe(rows)

    def _child(self, metric: Any, *labels: str) -> Any:
        key = (metric, *labels)
        if key not in self._children:
            self._children[key] = metric.labels(*labels)
        return self._children[key]

    def page(self) -> bytes:
        """Returns all of it in Prometheus' text format."""
        import prometheus_client.multiprocess

        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = prometheus_client.CollectorRegistry()
            prometheus_client.multiprocess.MultiProcessCollector(registry)
        return prometheus_client.generate_latest(registry)
