"""The page about benchmarks shows the recorded figures."""

from __future__ import annotations

import re

from bench.chart import CHART, draw, rates
from tests.docs.pages import page

BENCHMARKS = page("docs/internals/benchmarks.md")


def test_chart_is_drawn_from_the_results() -> None:
    assert CHART.read_text(encoding="utf-8") == draw()


def test_text_of_the_chart_names_every_rate() -> None:
    shown = re.search(r"!\[[^:]+: ([^\]]+)\]", BENCHMARKS.prose)
    assert shown is not None
    rounded = [f"{name} {rate:.0f}" for name, rate in rates().items()]
    assert shown[1].replace("Celery chain", "Celery, a chain") == ", ".join(rounded)


def test_page_is_short() -> None:
    assert len("\n".join(BENCHMARKS.lines).split()) <= 500
