"""Watching a run, and acting on it."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit

Visit = Callable[..., Page]


def test_run_is_watched_to_its_end(visit: Visit, durable_kit: Kit) -> None:
    @durable.function(id="tests.watched")
    def watched(ctx):
        ctx.step.run("first", lambda: {"n": 1})
        ctx.step.sleep("nap", "1h")
        return ctx.step.run("last", lambda: "done")

    run = watched.enqueue({"order": 7})
    page = visit("durable_jobs_run_change", run.pk)
    expect(page.locator(".durable-state")).to_contain_text("queued", ignore_case=True)
    durable_kit.run_until_idle()
    expect(page.locator(".durable-state")).to_contain_text("waiting", ignore_case=True)
    page.get_by_role("link", name="first", exact=True).click()
    expect(page.locator(".durable-panel").first).to_contain_text('"n": 1')
    durable_kit.advance("1h")
    expect(page.locator(".durable-state")).to_contain_text(
        "completed", ignore_case=True
    )
    expect(page.locator("[data-durable-live]")).to_have_count(0)
    expect(page.locator(".durable-panel").first).to_contain_text('"n": 1')
    assert Run.objects.get().status == "completed"


def test_run_is_rerun_from_a_step_with_other_data(
    visit: Visit, page: Page, durable_kit: Kit
) -> None:
    @durable.function(id="tests.greets")
    def greets(ctx):
        ctx.step.run("costly", lambda: "once")
        return ctx.step.run("greet", lambda: f"hello {ctx.event.data['name']}")

    run = greets.enqueue({"name": "an"})
    durable_kit.run_until_idle()
    visit("durable_jobs_run_change", run.pk)
    page.get_by_role("link", name="Rerun with changes").click()
    page.get_by_label("Start from step").select_option(label="greet (run)")
    page.get_by_label("Data").fill('{"name": "ann"}')
    page.get_by_label("Reason").fill("the name was cut")
    page.get_by_role("button", name="Rerun with changes").click()
    expect(page.locator(".messagelist")).to_contain_text("rerun with changes")
    expect(page.locator(".durable-timeline")).to_contain_text("costly")
    durable_kit.run_until_idle()
    expect(page.locator(".durable-state")).to_contain_text(
        "completed", ignore_case=True
    )
    assert Run.objects.order_by("pk").last().result() == "hello ann"


def test_part_of_the_time_is_brought_near(
    visit: Visit, page: Page, durable_kit: Kit
) -> None:
    @durable.function(id="tests.long")
    def long(ctx):
        ctx.step.sleep("short", "1m")
        ctx.step.sleep("long", "59m")

    run = long.enqueue()
    durable_kit.run_until_idle()
    durable_kit.advance("1h")
    visit("durable_jobs_run_change", run.pk)
    bar = page.locator(".durable-bar rect[data-from]").nth(1)
    expect(bar).to_have_attribute("width", "1.667%")
    track = page.locator("thead .durable-track")
    box = track.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 1, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 10, box["y"] + 5)
    page.mouse.up()
    assert float(bar.get_attribute("width").rstrip("%")) > 15
    page.get_by_role("button", name="Whole time").click()
    expect(bar).to_have_attribute("width", "1.667%")


def test_link_to_a_step_opens_it(visit: Visit, page: Page, durable_kit: Kit) -> None:
    @durable.function(id="tests.linked")
    def linked(ctx):
        return ctx.step.run("first", lambda: {"found": True})

    run = linked.enqueue()
    durable_kit.run_until_idle()
    key = run.steps.get().key
    page.goto("about:blank")
    visit("durable_jobs_run_change", run.pk, query=f"#step-{key}")
    expect(page.locator(f"#panel-{key[:12]}")).to_contain_text('"found": true')


def test_keyboard_moves_through_the_steps(
    visit: Visit, page: Page, durable_kit: Kit
) -> None:
    @durable.function(id="tests.keys")
    def keys(ctx):
        ctx.step.run("first", lambda: "the first")
        ctx.step.run("second", lambda: "the second")

    run = keys.enqueue()
    durable_kit.run_until_idle()
    visit("durable_jobs_run_change", run.pk)
    for _ in range(3):
        page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    expect(page.locator(".durable-panel").first).to_contain_text("the first")
    page.keyboard.press("?")
    expect(page.locator("#durable-keys")).to_be_visible()


def test_an_update_keeps_the_focus_and_open_steps(
    visit: Visit, page: Page, durable_kit: Kit
) -> None:
    @durable.function(id="tests.kept")
    def kept(ctx):
        ctx.step.run("first", lambda: {"n": 1})
        ctx.step.sleep("nap", "1h")
        ctx.step.map("each", lambda n: ctx.step.sleep("again", f"{n}h"), range(1, 6))

    run = kept.enqueue()
    durable_kit.run_until_idle()
    visit("durable_jobs_run_change", run.pk)
    timeline = page.locator(".durable-timeline")
    named = page.get_by_role("link", name="nap", exact=True)
    nap = page.locator(".durable-timeline > tbody", has=named)
    link = nap.get_by_role("link", name="nap", exact=True)
    link.click()
    expect(nap.locator(".durable-panel")).to_contain_text("sleeps until")
    first = timeline.get_by_role("link", name="first", exact=True)
    first.evaluate("link => link.id = 'x'")
    link.focus()
    durable_kit.advance("1h")
    expect(nap).to_contain_text("completed", ignore_case=True)
    expect(link).to_be_focused()
    expect(nap.locator(".durable-panel")).to_contain_text("sleeps until")
    expect(timeline.get_by_role("link", name="again", exact=True)).to_have_count(5)
    expect(page.get_by_role("status")).to_have_text("0 of 5 branches done")
    # A line without a change is the same element as before.
    expect(page.locator("#x")).to_have_text("first")
    page.locator("#durable-waits summary").click()
    durable_kit.advance("1h")
    expect(page.get_by_role("status")).to_have_text("1 of 5 branches done")
    expect(page.locator("#durable-waits")).to_have_attribute("open", "")


def test_a_link_to_a_step_of_a_long_run_draws_it(
    visit: Visit, page: Page, durable_kit: Kit
) -> None:
    @durable.function(id="tests.steps-of-a-long-run")
    def many(ctx):
        for number in range(60):
            ctx.step.run(f"line {number}", lambda: {"found": True})

    run = many.enqueue()
    durable_kit.run_until_idle()
    key = run.steps.get(name="line 30").key
    visit("durable_jobs_run_change", run.pk)
    expect(page.locator(".durable-timeline")).to_contain_text("line 10 … line 49")
    expect(page.locator(f"#step-{key}")).to_have_count(0)
    page.goto("about:blank")
    visit("durable_jobs_run_change", run.pk, query=f"#step-{key}")
    expect(page.locator(f"#panel-{key[:12]}")).to_contain_text('"found": true')


def test_steps_are_filtered_by_name_without_a_mouse(
    visit: Visit, page: Page, durable_kit: Kit
) -> None:
    @durable.function(id="tests.named")
    def named(ctx):
        ctx.step.run("charge", lambda: 1)
        ctx.step.run("mail", lambda: 2)

    run = named.enqueue()
    durable_kit.run_until_idle()
    visit("durable_jobs_run_change", run.pk)
    page.get_by_label("Name of a step").fill("mail")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="charge", exact=True)).to_have_count(0)
    expect(page.get_by_role("link", name="mail", exact=True)).to_be_visible()
    assert page.url.endswith("?name=mail#durable-timeline")
