"""The server's counters for Prometheus. Their names are TensorFlow Serving's, so its dashboards fit."""

import os
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from prometheus_client.metrics import MetricWrapperBase

__all__ = ["Metrics"]

_Metric = TypeVar("_Metric", bound="MetricWrapperBase")

_BUCKETS = [10 * 1.8**power for power in range(33)]  # microseconds, as TensorFlow Serving has them


class Metrics:
    """The counters of this process.

    If the environment variable `PROMETHEUS_MULTIPROC_DIR` is set, all workers keep their counters in that
    folder, and `page` shows the sums over all workers.
    """

    def __init__(self) -> None:
        import prometheus_client

        self._registry = prometheus_client.CollectorRegistry()
        several = {"multiprocess_mode": "sum"} if "PROMETHEUS_MULTIPROC_DIR" in os.environ else {}
        # A gauge, though it only counts up: Prometheus' client would add `_total` to the name of a counter,
        # and TensorFlow Serving's name does not have it.
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
        # `labels` takes a lock and checks its arguments. The result is kept, because each request needs it.
        self._children: dict[tuple[object, ...], Any] = {}

    def request(self, model: str, api: str, entrypoint: str, status: str, seconds: float) -> None:
        """Counts a request that has ended.

        Args:
            model: The model's name; empty for a model that does not exist.
            api: `REST` or `GRPC`.
            entrypoint: The method, such as `predict` or `Predict`.
            status: The name of the gRPC status.
            seconds: The time from the request to its answer.
        """
        self._child(self._requests, model, status).inc()
        self._child(self._latency, model, api, entrypoint).observe(seconds * 1e6)

    def batch(self, model: str, rows: int) -> None:
        """Counts a batch that has started, with its number of rows."""
        self._child(self._batches, model).observe(rows)

    def _child(self, metric: _Metric, *labels: str) -> _Metric:
        key = (metric, *labels)
        if key not in self._children:
            self._children[key] = metric.labels(*labels)
        child: _Metric = self._children[key]
        return child

    def page(self) -> bytes:
        """Returns all counters in Prometheus' text format."""
        import prometheus_client.multiprocess

        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = prometheus_client.CollectorRegistry()
            prometheus_client.multiprocess.MultiProcessCollector(registry)
        return prometheus_client.generate_latest(registry)
