"""One attempt of a run whose code is elsewhere: ask, do the steps it is at, ask again.

To the engine this is a function like others. What it asks the app is no step: like the
code of a function, it may be asked again at any time, with all that is recorded.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from durable_jobs import clock, durable
from durable_jobs.conf import settings
from durable_jobs.engine import remote_attempt
from durable_jobs.exceptions import (
    LimitExceeded,
    NonRetriableError,
    RemoteFailed,
    StepError,
)
from durable_jobs.remote import client, payloads, protocol, signing
from durable_jobs.remote.errors import bad
from durable_jobs.remote.protocol import ANY_STEP, Completed, Op, PlannedSteps
from durable_jobs.store.steps import StepRecord

if TYPE_CHECKING:
    import httpx

    from durable_jobs.remote.apps import App

#: How often an app may answer that it is nowhere, until that is an error.
MOST_EMPTY = 3
#: How many requests of one run are under way at once: each holds all of its results.
WIDTH = 32
EARLIEST = datetime.min.replace(tzinfo=UTC)


async def drive_attempt(app: App, slug: str, ctx: durable.AsyncContext) -> Any:
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
        self._memos: dict[str, StepRecord] = {}
        self._going: dict[str, asyncio.Task[None]] = {}
        self._turn = asyncio.Semaphore(WIDTH)

    async def hold(self) -> Any:
        """Ask and do, until the function has returned."""
        empty = 0
        while empty < MOST_EMPTY:
            self._recall()
            try:
                said = await self._ask()
            except RemoteFailed:
                await remote_attempt.wait_for_steps(
                    self._ctx
                )  # what is under way is not cut off
                raise
            if isinstance(said, Completed):
                return said.value
            ops = [op for op in said.ops if self._news(op)]
            empty = 0 if ops else empty + 1
            if ops:
                await self._do(ops, each=said.each)
        raise bad(f"The app said {MOST_EMPTY} times that its function is at no step.")

    def _recall(self) -> None:
        memos = remote_attempt.load_history(self._ctx)
        self._memos = {protocol.known_as(one.name, one.key): one for one in memos}

    def _news(self, op: Op) -> bool:
        memo = self._memos.get(op.id)
        return op.kind != "none" and (memo is None or not memo.ended)

    # Doing

    async def _do(self, ops: Sequence[Op], *, each: bool) -> None:
        """Do steps side by side until all have ended, or only one where that counts."""
        if len(ops) > settings.MAX_STEPS:
            msg = (
                f"The app is at {len(ops)} steps at once: a run may have "
                f"{settings.MAX_STEPS} (setting MAX_STEPS)."
            )
            raise LimitExceeded(msg)
        for op in ops:
            if op.id not in self._going:
                self._going[op.id] = asyncio.ensure_future(self._step(op))
        one = each or any(op.races for op in ops)
        enough = asyncio.FIRST_COMPLETED if one else asyncio.FIRST_EXCEPTION
        done, _ = await asyncio.wait(self._going.values(), return_when=enough)
        self._going = {i: task for i, task in self._going.items() if task not in done}
        errors = [error for task in done if (error := task.exception()) is not None]
        if errors:
            raise errors[0]

    async def _step(self, op: Op) -> None:
        kind = KINDS.get(op.kind)
        if kind is None:
            msg = f"The app asks for a step that is not known here: {op.kind!r:.40}."
            raise NonRetriableError(msg)
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
            ops = said.ops if isinstance(said, PlannedSteps) else ()
            ran = [one for one in ops if one.id == op.id]
            if len(ran) != 1 or KINDS.get(ran[0].kind) is not Conversation._has_run:
                raise bad(f"The app was asked to run step {op.name!r}, and did not.")
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

    async def _ask(self, step: str = ANY_STEP) -> Completed | PlannedSteps:
        async with self._turn:
            with remote_attempt.working(self._ctx):
                keys = self._app.keys()
                request = self._request(step)
                reply = await client.post(
                    self._http,
                    self._app.url,
                    query={"fnId": self._slug, "stepId": step},
                    headers=self._headers(step) | _signed(request, keys),
                    body=protocol.encoded(request),
                    limit=self._app.limit,
                )
        return protocol.read(_believed(reply, keys, self._app.unsigned_responses))

    def _headers(self, step: str) -> dict[str, str]:
        return {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "x-run-id": self._ctx.run_id,
            "x-request-id": str(uuid.uuid4()),
            "x-inngest-job-id": f"{self._ctx.run_id}-{step}",
        }

    def _request(self, step: str) -> dict[str, Any]:
        ended = [(key, memo) for key, memo in self._memos.items() if memo.ended]
        # Which of several was first decides a race, again and again.
        ended.sort(key=lambda one: (one[1].ended_at or EARLIEST, one[1].position))
        return {
            "event": payloads.event(self._ctx.event),
            "events": [payloads.event(event) for event in self._ctx.events],
            "steps": {key: payloads.answer(memo) for key, memo in ended},
            "version": protocol.UNKNOWN,
            "use_api": False,
            "ctx": {
                "run_id": self._ctx.run_id,
                "env": "",
                "step_id": step,
                "attempt": self._attempt(),
                "max_attempts": remote_attempt.retries(self._ctx) + 1,
                "stack": {"stack": [key for key, _ in ended], "current": len(ended)},
                "disable_immediate_execution": self._planned(),
                "use_api": False,
            },
        }

    def _attempt(self) -> int:
        """Return how often what the app is about to run has failed before.

        In the body of a planned step that is its own number; else the app goes on with
        the one step that is due again, or with the function itself.
        """
        if remote_attempt.inside_body():
            return self._ctx.attempt
        open_ = self._open()
        again = len(open_) == 1 and _runnable(open_[0])
        return open_[0].attempt if again else remote_attempt.failures(self._ctx)

    def _planned(self) -> bool:
        """Tell whether the app is to run no step unasked: others are open."""
        open_ = self._open()
        return bool(self._going) or len(open_) > 1 or not all(map(_runnable, open_))

    def _open(self) -> list[StepRecord]:
        return [memo for memo in self._memos.values() if not memo.ended]


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


def _runnable(memo: StepRecord) -> bool:
    """Tell whether the app may run an open step: not before its attempt is due."""
    due = memo.due_at is None or memo.due_at <= clock.now()
    return memo.kind == payloads.RUNS and due


def _result(op: Op) -> Any:
    """Return what the app's own body gave, or raise what it raised."""
    if op.error is not None:
        raise op.error
    # Old SDKs have wrapped it already.
    wrapped = op.kind == "step" and isinstance(op.data, dict) and "data" in op.data
    return op.data["data"] if wrapped else op.data


def _timeout(op: Op) -> timedelta | None:
    value = op.options.get("timeout")
    if value is None:
        return None
    until = protocol.length_or_moment(value)
    if isinstance(until, datetime):
        return max(until - clock.now(), timedelta())
    return until


def _signed(request: Mapping[str, Any], keys: Sequence[str]) -> dict[str, str]:
    """Return the headers that tell whether the app is to verify, and the signature."""
    if not keys:
        return {"x-inngest-server-kind": "dev"}
    now = int(clock.now().timestamp())
    signature = signing.signature(protocol.canonical(request), keys[0], now)
    return {"x-inngest-server-kind": "cloud", signing.HEADER: signature}


def _believed(reply: client.Reply, keys: Sequence[str], unsigned: bool) -> client.Reply:
    """Return the part of a reply that may be believed.

    That is all of it when the reply, or the one that is streamed inside of it, is
    signed. Without a signature nothing is taken for a result, and no header counts that
    would end the run.
    """
    signed = _is_signed(reply, keys)
    inner = protocol.unwrapped(reply)
    signed |= inner is not reply and _is_signed(inner, keys)
    if signed or unsigned or not keys:
        return inner
    if inner.status in protocol.RESULTS and protocol.SDK in inner.headers:
        msg = (
            "The app's answer has no signature. Expected one made with the signing "
            "key of this project: give the app that key, or declare it with "
            "unsigned_responses=True if its SDK does not sign."
        )
        raise RemoteFailed(msg, error_type="SignatureMissing")
    return protocol.stripped(inner)


def _is_signed(reply: client.Reply, keys: Sequence[str]) -> bool:
    """Return whether a reply is signed; raise when that is not with one of our keys."""
    signed = reply.headers.get(signing.HEADER)
    if not keys or signed is None:
        return False
    if not signing.verified(reply.body, signed, keys, clock.now().timestamp()):
        msg = "The app's answer is not signed with the key of this project."
        raise RemoteFailed(msg, error_type="SignatureWrong")
    return True
