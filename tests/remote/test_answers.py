"""The forms of an app's responses: of older SDKs, streamed, and other spellings."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from durable_jobs.testing import Kit
from tests.remote.conftest import Call
from tests.remote.elsewhere import (
    SDK,
    Elsewhere,
    at,
    http,
    json_reply,
    op,
    ran,
    returns,
)


def test_response_kept_alive_with_blanks_is_read(app: Elsewhere, call: Call):
    inner = {"status": 200, "headers": SDK, "body": json.dumps({"sum": 3})}
    app.answers(http(201, b"  \n " + json.dumps(inner).encode(), SDK))

    assert call().result() == {"sum": 3}


@pytest.mark.parametrize("inner", [[], {"status": "200"}, {"status": 200, "body": 1}])
def test_stream_that_ends_in_nonsense_is_an_error(
    app: Elsewhere, call: Call, inner: Any
):
    app.answers(http(201, json.dumps(inner).encode(), SDK))

    assert call(retries=0).error["type"] == "BadAnswer"


def test_function_without_a_result_returns_none(app: Elsewhere, call: Call):
    app.answers(http(200, b"", SDK))

    assert call().result() is None


def test_older_sdks_name_a_step_once_and_wrap_its_result(app: Elsewhere, call: Call):
    old = op("Step", "add", data={"data": 3})
    del old["userland"], old["displayName"]
    old["name"] = "add"
    app.answers(json_reply(206, old), returns(1))

    run = call()

    assert run.result() == 1
    step = run.steps.get()
    assert (step.name, step.output) == ("add", 3)
    assert app.requests[1].body["steps"] == {old["id"]: {"data": 3}}


def test_step_without_a_readable_name_is_named_by_its_id(app: Elsewhere, call: Call):
    odd = op("StepRun", "x" * 300, data=3)
    app.answers(at(odd), returns(1))

    run = call()

    assert run.steps.get().name == f"#{odd['id']}"
    assert app.requests[1].body["steps"] == {odd["id"]: {"data": 3}}


@pytest.mark.parametrize(
    "written", ["1h", "60m", "3600s", "in an hour, as a date", "as its name"]
)
def test_sleep_is_a_length_or_a_date(
    kit: Kit, app: Elsewhere, call: Call, later: Call, written: str
):
    then = (kit.now() + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    step = op("Sleep", "nap", opts={"duration": written})
    if "date" in written:
        step["opts"] = {"duration": then}
    if "name" in written:
        step |= {"opts": None, "name": then}
    app.answers(at(step), returns("slept"))

    run = call()

    assert later(run, "59m59s").status == "waiting"
    assert later(run, "1s").result() == "slept"
    assert app.requests[-1].body["steps"] == {step["id"]: None}


def test_invalid_sleep_fails_by_name(app: Elsewhere, call: Call):
    app.answers(at(op("Sleep", "nap", opts={"duration": "a while"})))

    run = call()

    assert (run.status, run.error["type"]) == ("failed", "NonRetriableError")
    assert "a while" in run.error["message"]


def test_planned_step_that_the_app_does_not_run_is_an_error_of_that_step(
    app: Elsewhere, call: Call, later: Call
):
    app.answers(at(op("StepPlanned", "one"), op("StepPlanned", "two")))
    app.runs("one", ran("one", 1))
    app.runs("two", returns("nothing to do with it"))

    run = call(retries=1)

    assert run.steps.get(name="one").output == 1
    two = run.steps.get(name="two")
    assert (two.status, two.error["type"]) == ("scheduled", "BadAnswer")
    app.answers(at(op("StepPlanned", "two")), returns("done"))
    app.runs("two", ran("two", 2))
    assert later(run, "10s").result() == "done"
    targeted = [r for r in app.requests if r.query["stepId"] == two.key]
    assert [r.body["ctx"]["attempt"] for r in targeted] == [0, 1]


def test_app_only_plans_while_steps_are_open(app: Elsewhere, call: Call, later: Call):
    sleep = op("Sleep", "nap", opts={"duration": "1h"})
    app.answers(at(op("StepPlanned", "one"), op("StepPlanned", "two"), sleep))
    app.runs("one", ran("one", 1))
    failing = {"name": "TypeError", "message": "no", "stack": "line 1"}
    app.runs("two", at(op("StepError", "two", error=failing)))
    run = call()

    app.answers(at(op("StepPlanned", "two"), sleep))
    app.runs("two", ran("two", 2))
    later(run, "10s")
    app.answers(returns("done"))

    assert later(run, "1h").result() == "done"
    plain = [r.body["ctx"] for r in app.requests if r.query["stepId"] == "step"]
    assert [c["disable_immediate_execution"] for c in plain] == [False, True, False]


def test_step_that_forbids_retries_is_not_retried(app: Elsewhere, call: Call):
    error = {"name": "TypeError", "message": "no", "stack": "line 1"}
    app.answers(
        at(op("StepError", "one", error=error), x_inngest_no_retry="true"),
        returns("caught"),
    )

    run = call()

    assert run.result() == "caught"
    known = app.requests[1].body["steps"][run.steps.get().key]["error"]
    assert known == error | {"data": None}


def test_values_unknown_to_json_are_sent_as_the_nearest(
    kit: Kit, app: Elsewhere, call: Call
):
    app.answers(returns(None))
    moment = kit.now()

    call({"at": moment, "big": 2**60, "text": "é\u2028"})

    sent = app.requests[0].body["event"]["data"]
    assert sent["big"] == 2**60
    assert sent["text"] == "é\u2028"
    assert sent["at"].startswith(f"{moment:%Y-%m-%dT%H:%M}")
