"""An app as its authors write it, with Inngest's own SDK for Python, over HTTP."""

from __future__ import annotations

import datetime
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from unittest import mock
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import time_machine
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings

with warnings.catch_warnings(action="ignore"):  # the SDK's own, of older pydantic
    import inngest
    import inngest.django

KEY = "signkey-test-00112233445566778899aabbccddeeff"
NEW_KEY = "signkey-test-ffeeddccbbaa99887766554433221100"

with mock.patch.dict(os.environ, INNGEST_SIGNING_KEY_FALLBACK=NEW_KEY):
    client = inngest.Inngest(
        app_id="billing",
        signing_key=KEY,
        event_key="unused",
        is_production=True,
        logger=logging.getLogger("tests.remote"),
    )

#: The calls of bodies, in order.
done: list[Any] = []
#: How often a body of this name has yet to fail.
failing: dict[str, int] = {}
#: Events that bodies wait for, and events that they set.
after: dict[str, threading.Event] = {}
first: dict[str, threading.Event] = {}
HOUR = datetime.timedelta(hours=1)


def _do(name: str, value: Any = None) -> Any:
    """Act as the body of a step."""
    if name in after:
        assert after[name].wait(10), f"{name} is to be done after another"
    if failing.get(name, 0):
        failing[name] -= 1
        done.append(f"{name} fails")
        raise ValueError(f"{name} does not work")
    done.append(name)
    if name in first:
        first[name].set()
    return name if value is None else value


def _trigger(name: str) -> inngest.TriggerEvent:
    return inngest.TriggerEvent(event=f"billing/{name}")


@client.create_function(fn_id="sequence", trigger=_trigger("sequence"))
def sequence(ctx: inngest.ContextSync) -> Any:
    """Execute one step after the other, with a sleep between."""
    first = ctx.step.run("first", lambda: _do("first"))
    ctx.step.sleep("nap", HOUR)
    again = ctx.step.run("first", lambda: _do("first again"))
    return {"got": [first, again], "from": ctx.event.data, "run": ctx.run_id}


@client.create_function(fn_id="chains", trigger=_trigger("chains"))
def chains(ctx: inngest.ContextSync) -> Any:
    """Execute two chains of steps in parallel."""

    def chain(name: str) -> Any:
        one = ctx.step.run(f"{name}1", lambda: _do(f"{name}1"))
        return one + ctx.step.run(f"{name}2", lambda: _do(f"{name}2"))

    mode = ctx.event.data.get("mode", "wait")
    return ctx.group.parallel(
        (lambda: chain("a"), lambda: chain("b")),
        parallel_mode=inngest.ParallelMode(mode),
    )


@client.create_function(fn_id="racing", trigger=_trigger("racing"))
def racing(ctx: inngest.ContextSync) -> Any:
    """Continue beside a sleep that has not ended."""

    def chain() -> Any:
        ctx.step.run("one", lambda: _do("one"))
        return ctx.step.run("two", lambda: _do("two"))

    return ctx.group.parallel(
        (chain, lambda: ctx.step.sleep("nap", HOUR)),
        parallel_mode=inngest.ParallelMode.RACE,
    )


@client.create_function(fn_id="waiting", trigger=_trigger("waiting"))
def waiting(ctx: inngest.ContextSync) -> Any:
    """Wait for an event that belongs to this run."""
    came = ctx.step.wait_for_event(
        "answer",
        event="billing/answered",
        if_exp="event.data.order == async.data.order",
        timeout=datetime.timedelta(days=1),
    )
    return None if came is None else [came.name, came.data, came.ts > 0]


@client.create_function(fn_id="invoking", trigger=_trigger("invoking"))
def invoking(ctx: inngest.ContextSync) -> Any:
    """Invoke another function of the app, and one of the project."""
    own = ctx.step.invoke("own", function=double, data={"number": 4})
    other = ctx.step.invoke_by_id(
        "other", app_id="shop", function_id="triple", data={"number": own}
    )
    return [own, other]


@client.create_function(fn_id="double", trigger=_trigger("double"))
def double(ctx: inngest.ContextSync) -> Any:
    """Return twice a number."""
    return ctx.event.data["number"] * 2


@client.create_function(fn_id="catching", trigger=_trigger("catching"))
def catching(ctx: inngest.ContextSync) -> Any:
    """Continue after a step that has failed for good."""
    try:
        ctx.step.run("try", lambda: _do("try"))
    except inngest.StepError as error:
        said = [error.name, error.message]
        return ctx.step.run("undo", lambda: _do("undo", said))
    return "not needed"


@client.create_function(fn_id="refusing", trigger=_trigger("refusing"))
def refusing(ctx: inngest.ContextSync) -> Any:
    """Raise an error that is not retried."""
    raise inngest.NonRetriableError("never")


@client.create_function(fn_id="busy", trigger=_trigger("busy"))
def busy(ctx: inngest.ContextSync) -> Any:
    """Ask for a retry in an hour."""
    if ctx.attempt == 0:
        raise inngest.RetryAfterError("busy", HOUR)
    return ctx.attempt


@client.create_function(fn_id="batch", trigger=_trigger("batch"))
def batch(ctx: inngest.ContextSync) -> Any:
    """Return the events of the batch."""
    return [event.data["number"] for event in ctx.events]


urlpatterns = [
    inngest.django.serve(
        client,
        [
            sequence, chains, racing, waiting, invoking, double, catching, refusing,
            busy, batch,
        ],
    )
]  # fmt: skip


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        return


@contextmanager
def served(now: Callable[[], datetime.datetime]) -> Iterator[str]:
    """Serve the app inside the block, with this clock; yield its address."""
    done.clear()
    failing.clear()
    after.clear()
    first.clear()
    handle = WSGIHandler()

    def on_time(environ: Any, start: Any) -> Any:
        with time_machine.travel(now()):
            return handle(environ, start)

    with override_settings(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"]):
        server = make_server("127.0.0.1", 0, on_time, _Server, _Quiet)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/api/inngest"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
