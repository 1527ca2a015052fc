"""The driver of a remote run: call the app, perform its steps, and call again.

To the engine, the driver is a function like any other. A call of the app is not a step.
Like the code of a function, it is repeated at any time with all recorded results.
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

#: How many replies without a new step are allowed.
MOST_EMPTY = 3
#: The most concurrent requests of one run. Each contains all results of the run.
WIDTH = 32
EARLIEST = datetime.min.replace(tzinfo=UTC)


async def drive_attempt(app: App, slug: str, ctx: durable.AsyncContext) -> Any:
    """Execute an attempt of a run. Return the result of the function."""
    async with client.connected() as http:
        return await RemoteAttempt(app, slug, ctx, http).run()


class RemoteAttempt:
    """One attempt of a remote run, with its recorded and running steps."""

    def __init__(
        self, app: App, slug: str, ctx: durable.AsyncContext, http: httpx.AsyncClient
    ) -> None:
        self._app = app
        self._slug = slug
        self._ctx = ctx
        self._http = http
        self._records: dict[str, StepRecord] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(WIDTH)

    async def run(self) -> Any:
        """Call the app and perform its steps until the function returns."""
        empty = 0
        while empty < MOST_EMPTY:
            self._load_history()
            try:
                reply = await self._call()
            except RemoteFailed:
                await remote_attempt.wait_for_steps(
                    self._ctx
                )  # running steps are not interrupted
                raise
            if isinstance(reply, Completed):
                return reply.value
            ops = [op for op in reply.ops if self._is_new(op)]
            empty = 0 if ops else empty + 1
            if ops:
                await self._perform(ops, each=reply.each)
        raise bad(f"The app replied {MOST_EMPTY} times without a new step.")

    def _load_history(self) -> None:
        records = remote_attempt.load_history(self._ctx)
        self._records = {
            protocol.remote_id(each.name, each.key): each for each in records
        }

    def _is_new(self, op: Op) -> bool:
        record = self._records.get(op.id)
        return op.kind != "none" and (record is None or not record.ended)

    # Performing steps

    async def _perform(self, ops: Sequence[Op], *, each: bool) -> None:
        """Perform steps concurrently until all end, or the first one in a race."""
        if len(ops) > settings.MAX_STEPS:
            msg = (
                f"The app planned {len(ops)} steps at once: expected at most "
                f"{settings.MAX_STEPS} (setting MAX_STEPS)."
            )
            raise LimitExceeded(msg)
        for op in ops:
            if op.id not in self._running:
                self._running[op.id] = asyncio.ensure_future(self._step(op))
        first = each or any(op.races for op in ops)
        enough = asyncio.FIRST_COMPLETED if first else asyncio.FIRST_EXCEPTION
        done, _ = await asyncio.wait(self._running.values(), return_when=enough)
        self._running = {
            i: task for i, task in self._running.items() if task not in done
        }
        errors = [error for task in done if (error := task.exception()) is not None]
        if errors:
            raise errors[0]

    async def _step(self, op: Op) -> None:
        kind = KINDS.get(op.kind)
        if kind is None:
            msg = f"The app uses an unknown kind of step: {op.kind!r:.40}."
            raise NonRetriableError(msg)
        try:
            await kind(self, op)
        except StepError:
            return  # recorded, and sent with the next call

    async def _record_result(self, op: Op) -> None:
        """Record the result of a step that the app has run."""

        async def body() -> Any:
            return _result(op)

        await self._ctx.step.run(op.name, body)

    async def _run_planned(self, op: Op) -> None:
        """Call the app to run one of several planned steps."""

        async def body() -> Any:
            reply = await self._call(op.id)
            ops = reply.ops if isinstance(reply, PlannedSteps) else ()
            ran = [step for step in ops if step.id == op.id]
            if (
                len(ran) != 1
                or KINDS.get(ran[0].kind) is not RemoteAttempt._record_result
            ):
                raise bad(f"The app did not run the requested step {op.name!r}.")
            return _result(ran[0])

        await self._ctx.step.run(op.name, body)

    async def _sleep(self, op: Op) -> None:
        until = protocol.length_or_moment(op.options.get("duration") or op.label)
        if isinstance(until, datetime):
            await self._ctx.step.sleep_until(op.name, until)
        else:
            await self._ctx.step.sleep(op.name, until)

    async def _wait(self, op: Op) -> None:
        await self._ctx.step.wait_for_event(
            op.name,
            str(op.options.get("event") or op.label),
            if_=op.options.get("if") or None,
            timeout=_timeout(op),
        )

    async def _invoke(self, op: Op) -> None:
        payload = op.options.get("payload")
        data = payload.get("data") if isinstance(payload, dict) else None
        function = str(op.options.get("function_id"))
        await self._ctx.step.invoke(op.name, function, data, timeout=_timeout(op))

    # Calling the app

    async def _call(self, step: str = ANY_STEP) -> Completed | PlannedSteps:
        async with self._slots:
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
        return protocol.read(_trusted(reply, keys, self._app.unsigned_responses))

    def _headers(self, step: str) -> dict[str, str]:
        return {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "x-run-id": self._ctx.run_id,
            "x-request-id": str(uuid.uuid4()),
            "x-inngest-job-id": f"{self._ctx.run_id}-{step}",
        }

    def _request(self, step: str) -> dict[str, Any]:
        ended = [(key, row) for key, row in self._records.items() if row.ended]
        # In a race, the step that ended first must be first in every replay.
        ended.sort(key=lambda item: (item[1].ended_at or EARLIEST, item[1].position))
        return {
            "event": payloads.event(self._ctx.event),
            "events": [payloads.event(event) for event in self._ctx.events],
            "steps": {key: payloads.step_result(row) for key, row in ended},
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
        """Return how many times the code that the app runs next has failed.

        In the body of a planned step, that is the step's attempt. Else it is the
        attempt of the only open step, or of the function.
        """
        if remote_attempt.inside_body():
            return self._ctx.attempt
        open_ = self._open()
        again = len(open_) == 1 and _runnable(open_[0])
        return open_[0].attempt if again else remote_attempt.failures(self._ctx)

    def _planned(self) -> bool:
        """Return whether the app must only plan steps, since other steps are open."""
        open_ = self._open()
        return bool(self._running) or len(open_) > 1 or not all(map(_runnable, open_))

    def _open(self) -> list[StepRecord]:
        return [row for row in self._records.values() if not row.ended]


Handler = Callable[[RemoteAttempt, Op], Coroutine[Any, Any, None]]

KINDS: Mapping[str, Handler] = {
    "steprun": RemoteAttempt._record_result,
    "step": RemoteAttempt._record_result,
    "steperror": RemoteAttempt._record_result,
    "stepfailed": RemoteAttempt._record_result,
    "stepplanned": RemoteAttempt._run_planned,
    "sleep": RemoteAttempt._sleep,
    "waitforevent": RemoteAttempt._wait,
    "invokefunction": RemoteAttempt._invoke,
}


def _runnable(record: StepRecord) -> bool:
    """Return whether the app may run an open step: its attempt must be due."""
    due = record.due_at is None or record.due_at <= clock.now()
    return record.kind == payloads.RUNS and due


def _result(op: Op) -> Any:
    """Return the result of the step's body in the app, or raise its error."""
    if op.error is not None:
        raise op.error
    # Old SDKs wrap the result.
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
    """Return the headers for the mode (development or signed) and the signature."""
    if not keys:
        return {"x-inngest-server-kind": "dev"}
    now = int(clock.now().timestamp())
    signature = signing.signature(protocol.canonical(request), keys[0], now)
    return {"x-inngest-server-kind": "cloud", signing.HEADER: signature}


def _trusted(reply: client.Reply, keys: Sequence[str], unsigned: bool) -> client.Reply:
    """Return the trusted part of a reply.

    If the reply, or the streamed reply inside it, is signed, all of it is trusted.
    Without a signature, a result raises ``RemoteFailed``, and headers that could end
    the run are removed.
    """
    signed = _is_signed(reply, keys)
    inner = protocol.unwrapped(reply)
    signed |= inner is not reply and _is_signed(inner, keys)
    if signed or unsigned or not keys:
        return inner
    if inner.status in protocol.RESULTS and protocol.SDK in inner.headers:
        msg = (
            "The app's reply has no signature. Expected a signature by the signing "
            "key of this project: set that key in the app, or declare the app with "
            "unsigned_responses=True if its SDK does not sign."
        )
        raise RemoteFailed(msg, error_type="SignatureMissing")
    return protocol.stripped(inner)


def _is_signed(reply: client.Reply, keys: Sequence[str]) -> bool:
    """Return whether a reply is signed. Raise if the signature is invalid."""
    signed = reply.headers.get(signing.HEADER)
    if not keys or signed is None:
        return False
    if not signing.verified(reply.body, signed, keys, clock.now().timestamp()):
        msg = "The app's reply is not signed with the key of this project."
        raise RemoteFailed(msg, error_type="SignatureWrong")
    return True
