"""The error of a failed run: the step, its attempts, its input and its frames."""

from __future__ import annotations

import json

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from durable_jobs import durable
from durable_jobs.models import Run, Step
from tests.admin.conftest import Page, make_runs, page_of

pytestmark = pytest.mark.django_db


def start(kit, body, **options):
    run = durable.function(id=f"tests.{body.__name__}", **options)(body).enqueue()
    kit.run_until_idle()
    return run


def banner(page: Page) -> Page:
    """Return the error of a run's page."""
    start = page.source.index('<section class="durable-why durable-failure"')
    return Page(page.source[start : page.source.index("</section>", start)])


def convert(currency):
    return {"EUR": 1}[currency]


def price(ctx):
    ctx.step.run("price", convert, "GBP")


def test_failed_step_shows_attempts_input_frames_and_actions(durable_kit, get):
    run = start(durable_kit, price, retries=1, backoff=durable.Backoff.fixed("1s"))
    durable_kit.advance("1s")
    step = Step.objects.get()
    found = banner(get(page_of(run)))
    assert found.text.startswith("Step price failed after 2 attempts: KeyError 'GBP'")
    assert '[ "GBP" ]' in found.text.replace("[", "[ ").replace("]", " ]")
    frames = found.text.index("in convert")
    assert frames < found.text.index("Traceback of the function")
    act = page_of(run).removesuffix("change/") + "act/"
    assert found.links() == [
        page_of(step),
        f"{act}redrive/",
        f"{act}rerun/?from_step={step.key}",
    ]
    form = get(found.links()[-1])
    assert f'value="{step.key}" selected' in form.source


def test_failed_inner_step_reruns_from_the_step_of_the_function(durable_kit, get):
    def each(ctx):
        ctx.step.map("all", lambda n: ctx.step.run("price", convert, n), ["EUR", "GBP"])

    run = start(durable_kit, each, retries=0)
    outer = Step.objects.get(parent=None)
    assert banner(get(page_of(run))).links("from_step")[0].endswith(outer.key)


def test_error_of_the_function_itself_names_no_step(durable_kit, get):
    def careless(ctx):
        raise LookupError("nothing there")

    run = start(durable_kit, careless, retries=0)
    found = banner(get(page_of(run)))
    assert found.text.startswith("The function failed: LookupError nothing there")
    assert "in careless" in found.text
    assert not found.links("from_step")


def test_error_shows_only_its_type_to_others(durable_kit, viewer):
    run = start(durable_kit, price, retries=0)
    found = banner(Page(viewer("run").get(page_of(run)).content.decode()))
    text = "Step price failed: KeyError Hidden: you may not see payloads."
    assert found.text == text
    assert found.links() == []


def test_error_of_unknown_form_is_shown_as_stored(get):
    run = make_runs(1, status="failed", error={"odd": 1})[0]
    found = banner(get(page_of(run)))
    assert found.text == 'The run failed {"odd": 1}'


def test_run_error_and_its_exports_have_the_name_of_the_step(durable_kit, admin_client):
    run = start(durable_kit, price, retries=0)
    error = Run.objects.get(pk=run.pk).error
    assert (error["step"], error["step_name"]) == (Step.objects.get().key, "price")
    address = page_of(run).replace("change/", "history.json")
    document = json.loads(admin_client.get(address).content)
    assert document["error"]["step_name"] == "price"


def test_page_of_a_failed_run_needs_few_queries(durable_kit, viewer):
    client = viewer("run", "step", "event")
    run = start(durable_kit, price, retries=0)
    with CaptureQueriesContext(connection) as captured:
        assert client.get(page_of(run)).status_code == 200
    assert len(captured) <= 15
