"""axe-core on a page: what keeps people from using it, in three looks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_playwright_python
from playwright.sync_api import Page

#: The debugger injects it into each page, which no content security policy hinders.
SCRIPT = Path(axe_playwright_python.__file__).parent / "axe.min.js"
#: Width and height, the colour scheme, and the rules that this look can break.
LOOKS: dict[str, tuple[tuple[int, int], Any, dict[str, Any]]] = {
    "light": ((1280, 900), "light", {}),
    "dark": ((1280, 900), "dark", {"runOnly": ["color-contrast"]}),
    "phone": (
        (390, 844),
        "light",
        {"runOnly": ["target-size", "scrollable-region-focusable"]},
    ),
}
#: The parts of a page that Django's own templates and styles draw.
FRAME = ("#header", "#nav-sidebar", ".breadcrumbs")
RUN = """async ([options, also, frame]) => {
  document.querySelectorAll("details").forEach(one => { one.open = true; });
  // A change of colours that is under way has the contrast of neither.
  await Promise.all(document.getAnimations().map(one => one.finished));
  const chosen = {resultTypes: ["violations"], preload: false, ...options};
  const exclude = frame.filter(one => document.querySelector(one)).map(one => [one]);
  const {violations} = await axe.run({exclude}, chosen);
  const wrong = violations.filter(
    one => ["serious", "critical"].includes(one.impact) || also.includes(one.id));
  return wrong.flatMap(one => one.nodes.map(node =>
    `${one.id}: ${node.target.join(" ")}\\n    ${node.html.slice(0, 200)}\\n    ` +
    node.failureSummary.split("\\n").slice(1).join(" ")));
}"""
#: Rules that count although axe calls their findings minor.
ALSO = ("empty-table-header",)


def findings(page: Page, name: str) -> Iterator[str]:
    """Yield what is wrong with a page in each look."""
    for look, ((width, height), scheme, options) in LOOKS.items():
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        for one in page.evaluate(RUN, [options, ALSO, FRAME]):
            yield f"{name}, {look}: {one}"
