"""The figures of an installation as Prometheus's text, by its own client."""

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
    """Return the figures of now; raise ``ImportError`` without prometheus-client."""
    from prometheus_client import CollectorRegistry, generate_latest

    # Of its own: the figures are the installation's, not this process's.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector())
    return generate_latest(registry)


class _Collector:
    """Looks when it is asked, and once."""

    def describe(self) -> list[Metric]:
        """Return nothing: registering looks at nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give each figure."""
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
            "Runs that are ready, and not begun." + _UP_TO,
            "queue",
            {one.name: one.depth for one in queues},
        )
        yield gauge(
            "oldest_ready_seconds",
            "For how long the first of them has been ready.",
            "queue",
            {one.name: one.oldest_seconds for one in queues},
        )
        yield gauge(
            "workers", "Processes seen a moment ago.", "kind", {**found.workers}
        )
        seen = last_tick()
        tick = GaugeMetricFamily(
            "durable_jobs_last_tick_seconds", "How long ago somebody ticked."
        )
        if seen is not None:
            tick.add_metric([], (clock.now() - seen).total_seconds())
        yield tick
