"""Examples of docs/reference/signals.md."""

from __future__ import annotations

from durable_jobs.signals import run_changed
from tests.docs.examples import section


@section("Signals")
def test_signals(run_example, shop):
    run_example()
    run_changed.disconnect(shop.count)
