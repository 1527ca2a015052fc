"""Draw the chart of docs/internals/benchmarks.md from bench/results/race.md."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RACE = ROOT / "bench" / "results" / "race.md"
CHART = ROOT / "docs" / "images" / "benchmarks.svg"

#: Left out: one task without steps, whose bar would make the other bars short.
LEFT_OUT = "Celery, one task"
ROW = re.compile(r"^\| ([^|(]+?)(?: \(([^|]+)\))? \| ([\d,.]+) \|")
WIDTH, LABEL, LINE = 720, 150, 26

STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#737b85}.head{font-weight:600}"
    ".ours{fill:#4a88cf}.other{fill:#8b949e}"
)


def rates() -> dict[str, float]:
    """Return five-step runs per second by engine, the fastest engine first."""
    table = RACE.read_text(encoding="utf-8").partition("### Summary")[2]
    found = [ROW.match(line) for line in table.partition("\n### ")[0].splitlines()]
    rates = {row[1]: float(row[3].replace(",", "")) for row in found if row}
    del rates[LEFT_OUT]
    return dict(sorted(rates.items(), key=lambda item: -item[1]))


def draw() -> str:
    """Return the chart as SVG."""
    known = rates()
    height = LINE * (len(known) + 1) + 16
    scale = (WIDTH - LABEL - 60) / max(known.values())
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img">',
        "<title>Runs of five steps a second</title>",
        f"<style>{STYLE}</style>",
        '<text class="head" x="10" y="22">Runs of five steps a second</text>',
    ]
    for number, (name, rate) in enumerate(known.items(), 1):
        y, width = LINE * number + 12, rate * scale
        kind = "ours" if name == "durable_jobs" else "other"
        lines += [
            f'<text x="10" y="{y + 13}">{escape(name)}</text>',
            f'<rect class="{kind}" x="{LABEL}" y="{y}" width="{width:.1f}" '
            'height="18" rx="2"/>',
            f'<text x="{LABEL + width + 8:.1f}" y="{y + 13}">{rate:.0f}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    CHART.write_text(draw(), encoding="utf-8")
