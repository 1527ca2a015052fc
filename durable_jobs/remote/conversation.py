"""One attempt of a run whose code is elsewhere: ask, do the steps it is at, ask again.

To the engine this is a function like others. What it asks the app is no step: like the
code of a function, it may be asked again at any time, with all that is recorded.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Model

from durable_jobs import clock, durable, serialization
from durable_jobs.engine import elsewhere
from durable_jobs.exceptions import NonRetriable, RemoteFailed, StepError
from durable_jobs.remote import client, protocol, signing
from durable_jobs.remote.protocol import ANY_STEP, Completed, Found, Op
from durable_jobs.statuses import StepStatus
from durable_jobs.store.steps import Memo

if TYPE_CHECKING:
    import httpx

    from durable_jobs.remote.apps import App

#: How often an app may answer that it is nowhere, until that is an error.
MOST_EMPTY = 3
#: The kinds of steps whose bodies the app runs.
RUNS = "run"
HASH = re.compile(r"[0-9a-f]{40}")


async def converse(app: App, slug: str, ctx: durable.AsyncContext) -> Any:
    """Bring a run as far as it goes, and return what its function returns."""
    async with client.connected() as http:
        return await Conversation(app, slug, ctx, http).hold()


class Conversation:
    """What one attempt knows of its app, and has going on."""

    def __init__(
        self, app: App, slug: str, ctx: durable.AsyncContext, http: httpx.AsyncClient
    ) -> None:
        self._app = app
        self._slug = slug
        self._ctx = ctx
        self._http = http
        self._memos: dict[str, Memo] = {}
        self._going: dict[str, asyncio.Task[None]] = {}

    async def hold(self) -> Any:
        """Ask and do, until the function has returned."""
        empty = 0
        while empty < MOST_EMPTY:
            self._memos = {_known_as(one): one for one in elsewhere.recall(self._ctx)}
            said = await self._ask()
            if isinstance(said, Completed):
                return said.value
            ops = [op for op in said.ops if self._news(op)]
            empty = 0 if ops else empty + 1
            if ops:
                await self._do(ops)
        msg = f"The app answered {MOST_EMPTY} times that its function is at no step."
        raise RemoteFailed(msg, error_type="BadAnswer")

    def _news(self, op: Op) -> bool:
        memo = self._memos.get(op.id)
        return op.kind != "none" and (memo is None or not memo.ended)

    # Doing

    async def _do(self, ops: Sequence[Op]) -> None:
        """Do steps side by side until all have ended, or in a race until one has."""
        for op in ops:
            if op.id not in self._going:
                self._going[op.id] = asyncio.ensure_future(self._step(op))
        racing = any(op.races for op in ops)
        enough = asyncio.FIRST_COMPLETED if racing else asyncio.FIRST_EXCEPTION
        done, _ = await asyncio.wait(self._going.values(), return_when=enough)
        self._going = {i: task for i, task in self._going.items() if task not in done}
        for task in done:
            task.result()

    async def _step(self, op: Op) -> None:
        kind = KINDS.get(op.kind)
        if kind is None:
            msg = f"The app asks for a step that is not known here: {op.kind!r:.40}."
            raise NonRetriable(msg)
        try:
            await kind(self, op)
        except StepError:
            return  # it is recorded, and the app learns of it from there

    async def _has_run(self, op: Op) -> None:
        """Record what the app has run while it was asked."""

        async def body() -> Any:
            return _result(op)

        await self._ctx.step.run(op.name, body)

    async def _is_planned(self, op: Op) -> None:
        """Let the app run one of several steps."""

        async def body() -> Any:
            said = await self._ask(op.id)
            ops = said.ops if isinstance(said, Found) else ()
            ran = [one for one in ops if one.id == op.id]
            if len(ran) != 1 or KINDS.get(ran[0].kind) is not Conversation._has_run:
                msg = f"The app was asked to run step {op.name!r}, and did not."
                raise RemoteFailed(msg, error_type="BadAnswer")
            return _result(ran[0])

        await self._ctx.step.run(op.name, body)

    async def _sleeps(self, op: Op) -> None:
        until = protocol.length_or_moment(op.options.get("duration") or op.label)
        if isinstance(until, datetime):
            await self._ctx.step.sleep_until(op.name, until)
        else:
            await self._ctx.step.sleep(op.name, until)

    async def _waits(self, op: Op) -> None:
        await self._ctx.step.wait_for_event(
            op.name,
            str(op.options.get("event") or op.label),
            if_=op.options.get("if") or None,
            timeout=_timeout(op),
        )

    async def _invokes(self, op: Op) -> None:
        payload = op.options.get("payload")
        data = payload.get("data") if isinstance(payload, dict) else None
        function = str(op.options.get("function_id"))
        await self._ctx.step.invoke(op.name, function, data, timeout=_timeout(op))

    # Asking

    async def _ask(self, step: str = ANY_STEP) -> Completed | Found:
        with elsewhere.at_work(self._ctx):
            body, canonical = protocol.encoded(self._request(step))
            keys = self._app.keys()
            headers = {
                "content-type": "application/json",
                "accept-encoding": "identity",
                "x-run-id": self._ctx.run_id,
                "x-request-id": str(uuid.uuid4()),
                "x-inngest-job-id": f"{self._ctx.run_id}-{step}",
                "x-inngest-req-version": "2",
                "x-inngest-server-kind": "cloud" if keys else "dev",
            }
            if keys:
                now = int(clock.now().timestamp())
                headers[signing.HEADER] = signing.signature(canonical, keys[0], now)
            reply = await client.post(
                self._http,
                self._app.url,
                query={"fnId": self._slug, "stepId": step},
                headers=headers,
                body=body,
                limit=self._app.limit,
            )
            self._check(reply, keys)
            return protocol.read(reply)

    def _check(self, reply: client.Reply, keys: Sequence[str]) -> None:
        """Refuse a reply that claims to be signed, and is not with one of our keys."""
        signed = reply.headers.get(signing.HEADER)
        if not keys or signed is None:
            return
        now = clock.now().timestamp()
        if not signing.verified(reply.body, signed, keys, now):
            msg = "The app's answer is not signed with the key of this project."
            raise RemoteFailed(msg, error_type="SignatureWrong")

    def _request(self, step: str) -> dict[str, Any]:
        ended = {key: memo for key, memo in self._memos.items() if memo.ended}
        return {
            "event": _event(self._ctx.event),
            "events": [_event(event) for event in self._ctx.events],
            "steps": {key: _answer(memo) for key, memo in ended.items()},
            "version": 2,
            "use_api": False,
            "ctx": {
                "fn_id": self._slug,
                "run_id": self._ctx.run_id,
                "env": "",
                "step_id": step,
                "attempt": self._attempt(),
                "max_attempts": elsewhere.retries(self._ctx) + 1,
                "stack": {"stack": list(ended), "current": len(ended)},
                "disable_immediate_execution": self._several_open(),
                "use_api": False,
            },
        }

    def _attempt(self) -> int:
        """Return how often what the app is about to run has failed before.

        In the body of a planned step that is its own number; else the app goes on with
        a step that failed, or with the function itself.
        """
        open_runs = [
            memo.attempt
            for memo in self._memos.values()
            if memo.kind == RUNS and not memo.ended
        ]
        inside = elsewhere.inside_body()
        return self._ctx.attempt if inside else max([self._ctx.attempt, *open_runs])

    def _several_open(self) -> bool:
        """Tell whether the app must only plan: other steps are going on, or wait."""
        return bool(self._going) or (
            sum(not memo.ended for memo in self._memos.values()) > 1
        )


Doing = Callable[[Conversation, Op], Coroutine[Any, Any, None]]

KINDS: Mapping[str, Doing] = {
    "steprun": Conversation._has_run,
    "step": Conversation._has_run,
    "steperror": Conversation._has_run,
    "stepfailed": Conversation._has_run,
    "stepplanned": Conversation._is_planned,
    "sleep": Conversation._sleeps,
    "waitforevent": Conversation._waits,
    "invokefunction": Conversation._invokes,
}


def _result(op: Op) -> Any:
    """Return what the app's own body gave, or raise what it raised."""
    if op.error is not None:
        raise op.error
    # Old SDKs have wrapped it already.
    wrapped = op.kind == "step" and isinstance(op.data, dict) and "data" in op.data
    return op.data["data"] if wrapped else op.data


def _timeout(op: Op) -> timedelta | str | None:
    value = op.options.get("timeout")
    if value is None:
        return None
    until = protocol.length_or_moment(value)
    if isinstance(until, datetime):
        return max(until - clock.now(), timedelta())
    return until


# What is known, in the app's words


def _known_as(memo: Memo) -> str:
    """Return the id by which the app knows a step."""
    return memo.name if HASH.fullmatch(memo.name) else memo.key


def _answer(memo: Memo) -> Any:
    """Return how a step ended, as the app is told."""
    if memo.status in (StepStatus.FAILED, StepStatus.CANCELLED):
        error = memo.error or {}
        return {
            "error": {
                "name": str(error.get("type", "Error")),
                "message": str(error.get("message", "")),
                "stack": str(error.get("traceback", "")),
            }
        }
    value = None if memo.output is None else serialization.loads(memo.output)
    if memo.kind == "wait_for_event" and isinstance(value, dict):
        return _event(durable.ReceivedEvent(**value))
    if memo.kind in (RUNS, "invoke"):
        return {"data": _plain(value)}
    return None


def _event(event: durable.ReceivedEvent) -> dict[str, Any]:
    ts: Any = event.ts  # of an event that was waited for, as it is recorded
    if not isinstance(ts, datetime):
        ts = datetime.fromisoformat(ts)
    said = {
        "id": event.id,
        "name": event.name,
        "data": _plain(event.data),
        "ts": int(ts.timestamp() * 1000),
    }
    return said | ({} if event.v is None else {"v": event.v})


class _Plain(DjangoJSONEncoder):
    """What JSON has no word for: a model instance as its model and key."""

    def default(self, o: Any) -> Any:
        if isinstance(o, Model):
            return {"model": o._meta.label_lower, "pk": o.pk}
        if hasattr(o, "model_dump"):
            return o.model_dump(mode="json")
        return super().default(o)


def _plain(value: Any) -> Any:
    """Return a value as plain JSON has it; raise ``NonRetriable`` where that cannot."""
    try:
        return json.loads(json.dumps(value, cls=_Plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        msg = f"A value of the run is not one that JSON has: {error}"
        raise NonRetriable(msg) from None
