"""Every screen in light, in dark and on a phone: nothing overflows, nothing breaks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from durable_jobs.testing import Kit
from tests.browser import scene

Visit = Callable[..., Page]
#: Folder of the pictures. Name a folder of the documentation to renew its pictures.
PICTURES = os.environ.get("PICTURES")
SIZES = {"light": (1280, 900), "dark": (1280, 900), "phone": (390, 844)}


@pytest.mark.parametrize("look", SIZES)
def test_every_screen_fits(
    look: str, visit: Visit, page: Page, durable_kit: Kit, tmp_path: Path
) -> None:
    scene.past()
    run = scene.shop(durable_kit)
    width, height = SIZES[look]
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme="dark" if look == "dark" else "light")
    folder = Path(PICTURES) if PICTURES else tmp_path
    screens = {
        "overview": ("durable_jobs_overview", ()),
        "runs": ("durable_jobs_run_changelist", ()),
        "run": ("durable_jobs_run_change", (run.pk,)),
        "step": ("durable_jobs_step_change", (run.steps.get(name="charge").pk,)),
        "act": ("durable_jobs_run_act", (run.pk, "edit")),
        "test": ("durable_jobs_run_test", (run.pk,)),
        "events": ("durable_jobs_event_changelist", ()),
        "functions": ("durable_jobs_functions", ()),
        "traffic": ("durable_jobs_queues", ()),
        "schedules": ("durable_jobs_schedule_changelist", ()),
        "approvals": ("durable_jobs_approvals", ()),
    }
    for name, (address, args) in screens.items():
        visit(address, *args)
        page.screenshot(path=folder / f"{name}-{look}.png", full_page=True)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{name} is {wide} wide"
    page.get_by_role("link", name="Give back 40").click()
    page.screenshot(path=folder / f"approval-{look}.png", full_page=True)
