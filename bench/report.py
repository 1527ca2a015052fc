"""Markdown tables with the median, the range and the ratio of each figure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from bench.adapters import Peer
from bench.race import FLOOR, Results
from bench.workloads import Figure, Workload

OURS = "ours"
#: The cell of a missing figure.
NONE = "\N{EN DASH}"


#: The figures of the summary, by workload.
HEADLINES = {
    "W1": ("5-step runs", "1-step runs"),
    "W2": ("W2 first step, p50", "W3 between steps, p50"),
    "W4": ("single", "bulk"),
    "W5": ("late, p50",),
    "W6": ("fan-out",),
    "W7": ("late",),
    "W8": ("bytes",),
    "W12": ("statements",),
    "W13": ("all processes",),
}


def tables(results: Results, peers: list[Peer], workloads: list[Workload]) -> str:
    """Return a summary and one Markdown table per workload, one line per peer."""
    parts = [_floor(results), _summary(results, peers, workloads)]
    for one in workloads:
        lines = [f"### {', '.join(one.names)}: {one.title}", ""]
        lines += _table(results, peers, one)
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _summary(results: Results, peers: list[Peer], workloads: list[Workload]) -> str:
    """Return a table with the medians of ``HEADLINES``, one line per peer."""
    chosen = [
        (one, figure)
        for one in workloads
        for figure in one.figures
        if figure.name in HEADLINES.get(one.names[0], ())
    ]
    titles = [_title(one, figure) for one, figure in chosen]
    lines = ["### Summary: medians", "", f"| | {' | '.join(titles)} |"]
    lines.append(f"|---|{'--:|' * len(titles)}")
    for peer in peers:
        cells = []
        for one, figure in chosen:
            values = results.values.get((peer.name, one.names[0], figure.name))
            cells.append(number(statistics.median(values)) if values else NONE)
        lines.append(f"| {peer.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _title(one: Workload, figure: Figure) -> str:
    name = figure.name if len(one.names) > 1 else f"{one.names[0]} {figure.name}"
    return f"{name}, {figure.unit}"


def _floor(results: Results) -> str:
    found = {key: values for key, values in results.values.items() if key[0] == FLOOR}
    lines = ["### Baseline: bare commits with psycopg on the same server", ""]
    lines += ["| | median | minimum | maximum |", "|---|--:|--:|--:|"]
    for (_, _, name), values in found.items():
        unit = "ms" if name.startswith("a commit") else "/s"
        cells = (statistics.median(values), min(values), max(values))
        lines.append(f"| {name}, {unit} | " + " | ".join(map(number, cells)) + " |")
    return "\n".join(lines)


def _table(results: Results, peers: list[Peer], one: Workload) -> Iterator[str]:
    titles = [f"{figure.name}, {figure.unit}" for figure in one.figures]
    yield f"| | {' | '.join(titles)} |"
    yield f"|---|{'--:|' * len(titles)}"
    without = []
    for peer in peers:
        cells = [_cell(results, peer, one, figure) for figure in one.figures]
        trouble = results.troubles.get((peer.name, one.names[0]))
        if trouble and cells[0] == NONE:
            cells[0] = f"failed: {trouble[:80]}"
        if set(cells) == {NONE}:
            without.append(peer.title.partition(" (")[0].partition(",")[0])
        else:
            yield f"| {peer.title} | {' | '.join(cells)} |"
    if without:
        yield ""
        yield f"Not supported or not measured: {', '.join(dict.fromkeys(without))}."


def _cell(results: Results, peer: Peer, one: Workload, figure: Figure) -> str:
    """Return the median, the range in brackets, and the ratio to durable_jobs."""
    key = one.names[0], figure.name
    values = results.values.get((peer.name, *key))
    if not values:
        return NONE
    median = statistics.median(values)
    text = number(median)
    if len(values) > 1:
        text += f" ({number(min(values))} to {number(max(values))})"
    ours = results.values.get((OURS, *key))
    if (
        ours
        and peer.name != OURS
        and figure.better
        and (own := statistics.median(ours))
    ):
        text += f" · {median / own:.2g} of ours"
    return text


def number(value: float) -> str:
    """Return a number with three significant digits, or without decimals from 100."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
