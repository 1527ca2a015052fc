"""Metrics of the installation in the Prometheus text format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from durable_jobs import clock
from durable_jobs.maintenance.doctor import last_tick
from durable_jobs.queries.metrics import MAX_COUNT, figures

if TYPE_CHECKING:
    from prometheus_client import Metric

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_UP_TO = f" Counted up to {MAX_COUNT}."


def text() -> bytes:
    """Return the metrics. Raise ``ImportError`` without prometheus-client."""
    from prometheus_client import CollectorRegistry, generate_latest

    # A registry of its own: the metrics describe the installation, not this process.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector())
    return generate_latest(registry)


class _Collector:
    """A collector that queries the database when it is collected."""

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering runs no query."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield each metric."""
        from prometheus_client.core import GaugeMetricFamily

        def gauge(
            name: str, what: str, label: str, values: dict[str, float]
        ) -> GaugeMetricFamily:
            made = GaugeMetricFamily(f"durable_jobs_{name}", what, labels=[label])
            for value, figure in values.items():
                made.add_metric([value], figure)
            return made

        found = figures()
        queues = found.queues
        yield gauge("runs", "Live runs." + _UP_TO, "status", {**found.live})
        yield gauge(
            "ended_runs",
            "Runs that ended in the last five minutes." + _UP_TO,
            "status",
            {**found.ended},
        )
        yield gauge(
            "queue_depth",
            "Runs that are ready to start." + _UP_TO,
            "queue",
            {one.name: one.depth for one in queues},
        )
        yield gauge(
            "oldest_ready_seconds",
            "Seconds since the oldest ready run became ready.",
            "queue",
            {one.name: one.oldest_seconds for one in queues},
        )
        yield gauge(
            "workers", "Processes with a recent heartbeat.", "kind", {**found.workers}
        )
        seen = last_tick()
        tick = GaugeMetricFamily(
            "durable_jobs_last_tick_seconds", "Seconds since the last tick."
        )
        if seen is not None:
            tick.add_metric([], (clock.now() - seen).total_seconds())
        yield tick
