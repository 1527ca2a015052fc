"""A misbehaving app costs attempts, and never a result, a worker or a secret.

Each test first asserts what the app did, then how the run ends.
"""

from __future__ import annotations

import gzip
import socket
import threading
import time
import zlib
from datetime import timedelta
from email.utils import format_datetime

import pytest

from durable_jobs import durable, remote
from durable_jobs.models import FailedAttempt, Run
from durable_jobs.remote import client, signing
from durable_jobs.testing import Kit
from tests.remote.conftest import Call
from tests.remote.elsewhere import (
    SDK,
    Answer,
    Elsewhere,
    at,
    http,
    json_reply,
    op,
    ran,
    reset,
    returns,
    signed,
)

KEY = "signkey-test-0123456789abcdef0123456789abcdef"


def troubles(run: Run) -> list[str]:
    """Return the kinds of errors of a run's failed attempts, in order."""
    rows = FailedAttempt.objects.filter(run=run).order_by("pk")
    return [row.error["type"] for row in rows]


def head(status: int, length: int, **headers: str) -> bytes:
    """Return the beginning of a response whose body is yet to come."""
    lines = {**SDK, "content-length": str(length), **headers}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} X\r\n{text}\r\n".encode()


def slowly(peer: socket.socket) -> None:
    """Send a byte now and then, without end."""
    peer.sendall(head(200, 10_000))
    while True:
        peer.sendall(b" ")
        time.sleep(0.05)


def bomb(size: int) -> bytes:
    """Return gzip that becomes ``size`` bytes."""
    packer = zlib.compressobj(9, wbits=31)
    chunk = b" " * 65536
    return (
        b"".join(packer.compress(chunk) for _ in range(size // 65536)) + packer.flush()
    )


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(reset(b""), "Unreachable", id="breaks off before it answers"),
        pytest.param(
            reset(head(206, 100) + b'[{"op"'), "Unreachable", id="breaks off midway"
        ),
        pytest.param(
            http(200, b"<h1>Welcome</h1>", {"content-type": "text/html"}),
            "NotSdk",
            id="is a web page",
        ),
        pytest.param(
            http(302, b"", {"location": "http://169.254.169.254/latest"}),
            "Redirected",
            id="sends us elsewhere",
        ),
        pytest.param(
            http(
                206,
                bomb(client.MAX_REPLY * 4),
                {**SDK, "content-encoding": "gzip"},
            ),
            "TooLarge",
            id="sends a small gzip that becomes huge",
        ),
        pytest.param(
            http(206, b" " * (client.MAX_REPLY + 1), SDK),
            "TooLarge",
            id="sends too much",
        ),
        pytest.param(
            http(206, b"no gzip", {**SDK, "content-encoding": "gzip"}),
            "BadAnswer",
            id="sends what is no gzip",
        ),
        pytest.param(
            http(
                206,
                gzip.compress(b"[]" * 500)[:20],
                {**SDK, "content-encoding": "gzip"},
            ),
            "BadAnswer",
            id="sends half of a gzip",
        ),
        pytest.param(
            http(
                206, gzip.compress(b"[]") + b"more", {**SDK, "content-encoding": "gzip"}
            ),
            "BadAnswer",
            id="sends more than a gzip",
        ),
        pytest.param(
            http(206, b"[]", {**SDK, "content-encoding": "br"}),
            "BadAnswer",
            id="sends an encoding that nobody asked for",
        ),
        pytest.param(
            json_reply(206, [{"op": 7}]), "BadAnswer", id="sends what is no step"
        ),
        pytest.param(http(502, b"<html>"), "BadStatus", id="is behind a broken proxy"),
        pytest.param(http(404, b""), "NotFound", id="is not there"),
        pytest.param(
            json_reply(401, {"message": "Unauthorized"}),
            "SignatureRefused",
            id="does not know our key",
        ),
    ],
)
def test_misbehaving_app_is_asked_again(
    app: Elsewhere, call: Call, later: Call, answer: Answer, kind: str
):
    app.answers(ran("first", 1), answer, ran("second", 2), returns("done"))

    run = call()
    assert troubles(run) == [kind]
    assert run.status == "queued"

    assert later(run, "10s").result() == "done"
    assert [step.output for step in run.steps.order_by("position")] == [1, 2]
    attempts = [request.body["ctx"]["attempt"] for request in app.requests]
    assert attempts == [0, 0, 1, 0]


def test_unreachable_app_is_asked_again(kit: Kit, app: Elsewhere, later: Call):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # and no process listens there any more
    made = remote.App("gone", f"http://127.0.0.1:{port}/").function("work", retries=1)

    run = made.enqueue()
    kit.advance("1h")
    run.refresh_from_db()

    assert (run.status, run.error["type"]) == ("failed", "Unreachable")
    assert troubles(run) == ["Unreachable"]


def test_dripping_response_is_aborted_at_the_timeout(
    app: Elsewhere, call: Call, later: Call
):
    app.answers(slowly, returns("done"))

    run = call(timeout="300ms")

    assert troubles(run) == ["Timeout"]
    assert later(run, "10s").result() == "done"


def test_response_after_the_timeout_is_void(app: Elsewhere, call: Call, later: Call):
    answered, ended = threading.Event(), threading.Event()

    def too_late(peer: socket.socket) -> None:
        answered.wait(10)
        at(op("StepRun", "pay", data="late"))(peer)
        ended.set()

    app.answers(too_late, ran("pay", "in time"), returns("done"))

    run = call(timeout="300ms")
    assert troubles(run) == ["Timeout"]
    run = later(run, "10s")
    answered.set()

    assert ended.wait(10)
    assert run.result() == "done"
    assert run.steps.get().output == "in time"
    ids = [request.headers["x-request-id"] for request in app.requests]
    assert len(set(ids)) == 3


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "HTTP date", "ISO date"])
def test_busy_app_chooses_the_time_of_the_retry(
    kit: Kit, app: Elsewhere, call: Call, later: Call, status: int, form: str
):
    then = kit.now() + timedelta(minutes=7)
    text = {
        "seconds": "420",
        "HTTP date": format_datetime(then, usegmt=True),
        "ISO date": then.isoformat(),
    }[form]
    app.answers(http(status, b"", {"retry-after": text}), returns("done"))

    run = call()

    assert run.due_at == then
    assert later(run, "6m59s").status == "queued"
    assert later(run, "1s").result() == "done"


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("0", "1s"),
        ("999999999", "24h"),
        ("soon", "10s"),
        ("9" * 400, "10s"),
        ("Mon, 1 Jan 99999999999 00:00:00 GMT", "10s"),
    ],
)
def test_unreasonable_retry_after_is_ignored(
    kit: Kit, app: Elsewhere, call: Call, text: str, length: str
):
    app.answers(http(503, b"", {"retry-after": text}))

    run = call()

    assert run.due_at - kit.now() == durable_length(length)


def durable_length(text: str) -> timedelta:
    """Return a duration as the project writes it."""
    from durable_jobs.durations import parse_duration

    return parse_duration(text)


def test_response_with_a_foreign_signature_is_refused(kit: Kit, app: Elsewhere):
    now = int(kit.now().timestamp())
    forged = signing.signature(b'"forged"', "signkey-test-00", now)
    own = signing.signature(b'"own"', KEY, now)
    old = signing.signature(b'"old"', KEY, now - signing.WINDOW - 60)
    app.answers(
        http(200, b'"forged"', {**SDK, signing.HEADER: forged}),
        http(200, b'"old"', {**SDK, signing.HEADER: old}),
        http(200, b'"own"', {**SDK, signing.HEADER: own}),
    )
    function = remote.App("billing", app.url, signing_key=KEY).function(
        "work", backoff=durable.Backoff.fixed("1s")
    )

    run = function.enqueue()
    kit.advance("1m")
    run.refresh_from_db()

    assert troubles(run) == ["SignatureWrong", "SignatureWrong"]
    assert run.result() == "own"
    assert KEY not in repr(function) + repr(remote.App("a", app.url, signing_key=KEY))


def test_response_without_a_signature_is_refused(kit: Kit, app: Elsewhere):
    page = http(502, b"<h1>Bad gateway</h1>", {})
    app.answers(
        returns("forged"),
        json_reply(201, {"status": 200, "headers": SDK, "body": '"forged"'}),
        json_reply(206, [op("StepRun", "one", data="forged")]),
        page,
        signed(KEY, 200, "own"),
    )
    run = _unsigned(kit, app)

    assert troubles(run) == [*["SignatureMissing"] * 3, "BadStatus"]
    assert run.result() == "own"
    assert not run.steps.exists()


@pytest.mark.parametrize("status", [400, 500, 201])
def test_unsigned_response_does_not_end_the_run(kit: Kit, app: Elsewhere, status: int):
    said = {"name": "Forged", "message": "never again", "noRetry": True}
    final = {"x-inngest-no-retry": "true"}
    app.answers(json_reply(status, said, **final), signed(KEY, 200, "own"))
    run = _unsigned(kit, app)

    assert len(troubles(run)) == 1
    assert "Forged" not in troubles(run)
    assert run.result() == "own"


def test_unsigned_response_is_accepted_if_the_app_allows_it(kit: Kit, app: Elsewhere):
    wrong = signed("signkey-test-00", 200, "forged")
    app.answers(ran("one", 1), wrong, returns("unsigned"))
    run = _unsigned(kit, app, unsigned_responses=True)

    assert troubles(run) == ["SignatureWrong"]
    assert run.result() == "unsigned"
    with pytest.raises(durable.ConfigurationError, match="unsigned_responses"):
        remote.App("other", app.url, unsigned_responses="yes")


def _unsigned(kit: Kit, app: Elsewhere, **options: bool) -> Run:
    """Run a function of an app with a signing key to its end."""
    function = remote.App("billing", app.url, signing_key=KEY, **options).function(
        "work", backoff=durable.Backoff.fixed("1s")
    )
    run = function.enqueue()
    kit.advance("1m")
    run.refresh_from_db()
    return run


def test_result_that_cannot_be_stored_fails_at_once(app: Elsewhere, call: Call):
    app.answers(http(200, b'{"a": NaN}', SDK))

    run = call()

    assert (run.status, run.error["type"]) == ("failed", "BadAnswer")
    assert "NaN is not allowed" in run.error["message"]


def test_repeatedly_empty_responses_are_an_error(app: Elsewhere, call: Call):
    app.answers(at(), at(op("None", "nothing")), at())

    assert troubles(call()) == ["BadAnswer"]


def test_history_that_has_grown_too_large_to_send_fails_by_name(
    app: Elsewhere, call: Call
):
    half = "x" * (client.MAX_REQUEST // 2)
    app.answers(ran("one", half), ran("two", half))

    run = call()

    assert (run.status, run.error["type"]) == ("failed", "LimitExceeded")


def test_step_of_an_unknown_kind_fails_by_name(app: Elsewhere, call: Call):
    app.answers(at(op("AIGateway", "think", opts={})))

    run = call()

    assert run.status == "failed"
    assert "'aigateway'" in run.error["message"]
