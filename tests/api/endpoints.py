"""Every endpoint, with its requirements and an otherwise valid request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from durable_jobs import durable
from durable_jobs.lifecycle import callbacks
from durable_jobs.models import Run, Schedule
from tests.api.conftest import Caller


@dataclass(frozen=True)
class Endpoint:
    """A method and an address; without ``permission``, nothing is required."""

    method: str
    path: str
    permission: str | None = None
    scope: str | None = None
    body: Any = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def ask(self, caller: Caller, place: dict[str, Any], method: str = "") -> Any:
        """Send the request."""
        path = self.path.format(**place)
        if (method or self.method) == "GET":
            return caller.get(path)
        body = self.body(place) if callable(self.body) else self.body
        return caller.post(path, body)


def _steer(*actions: str) -> list[Endpoint]:
    return [
        Endpoint("POST", f"runs/{{{action}}}/{action}", f"{action}_run", "runs:write")
        for action in actions
    ]


ANSWER: Callable[[dict[str, Any]], Any] = lambda place: {"step": place["step"]}  # noqa: E731  # one of many values of a table

BULK = {"action": "cancel", "filter": {"function": "tests.asks"}}

ENDPOINTS = [
    Endpoint("POST", "events", "send_event", "events:send", {"name": "tests/one"}),
    Endpoint("POST", "signals/go", "send_signal", "signals:send"),
    Endpoint("GET", "functions", "view_run", "runs:read"),
    Endpoint("GET", "functions/tests.asks", "view_run", "runs:read"),
    Endpoint("POST", "functions/tests.asks/runs", "start_run", "runs:start"),
    Endpoint("GET", "runs", "view_run", "runs:read"),
    Endpoint("GET", "runs/{run}", "view_run", "runs:read"),
    Endpoint("GET", "runs/{run}/trace", "view_run", "runs:read"),
    Endpoint("GET", "runs/{run}/steps", "view_run", "runs:read"),
    Endpoint("GET", "runs/{run}/steps/{step}", "view_run", "runs:read"),
    Endpoint("GET", "runs/{run}/result", "view_run", "runs:read"),
    *_steer("cancel", "pause", "resume", "retry", "wake", "redrive", "rerun"),
    Endpoint("POST", "runs/bulk", "cancel_run", "runs:write", BULK),
    Endpoint("POST", "runs/{run}/answer", "answer_run", "runs:write", ANSWER),
    Endpoint("GET", "schedules", "view_schedule", "schedules:read"),
    Endpoint("POST", "schedules/{active}/pause", "pause_schedule", "schedules:write"),
    Endpoint("POST", "schedules/{paused}/resume", "pause_schedule", "schedules:write"),
    Endpoint("POST", "schedules/{active}/run", "run_schedule", "schedules:write"),
    Endpoint("GET", "approvals", None, "approvals:decide"),
    Endpoint("POST", "approvals/{approval}/decide", None, "approvals:decide"),
    Endpoint("POST", "callbacks/{token}/heartbeat"),
    Endpoint("POST", "callbacks/{token}/succeed", body={"data": 1}),
    Endpoint("POST", "callbacks/{other_token}/fail", body={"message": "no"}),
    Endpoint("GET", "health"),
    Endpoint("GET", "ready"),
    Endpoint("GET", "metrics", "view_worker", "metrics:read"),
]


def furnish(kit: Any) -> dict[str, Any]:
    """Create the objects of the endpoints, with a suitable run for each action."""

    @durable.function(id="tests.asks", retries=2)
    def asks(ctx: durable.Context) -> Any:
        kind = ctx.event.data.get("kind", "ask")
        if kind == "sleep":
            ctx.step.sleep("night", "1d")
        elif kind == "fail":
            raise durable.NonRetriableError("no")
        elif kind == "retry":
            ctx.step.run("break", lambda: 1 // 0)
        elif kind == "call":
            ctx.step.wait_for_callback("call", lambda callback: None, heartbeat="1h")
        elif kind == "approve":
            view = "durable_jobs.view_run"
            ctx.step.approve("boss", title="May it?", permission=view)
        else:
            ctx.step.wait_for_event("review", "tests/reviewed", timeout="7d")

    kinds = {
        "run": "ask", "cancel": "ask", "pause": "ask", "resume": "ask",
        "retry": "retry", "wake": "sleep", "redrive": "fail", "rerun": "fail",
        "called": "call", "called_too": "call", "approving": "approve",
    }  # fmt: skip
    made: dict[str, Run] = {n: asks.enqueue({"kind": k}) for n, k in kinds.items()}
    kit.run_until_idle()
    made["resume"].pause()
    place: dict[str, Any] = {name: run.pk for name, run in made.items()}
    place["step"] = made["run"].steps.get().key
    for name, run in {"token": "called", "other_token": "called_too"}.items():
        place[name] = callbacks.token(made[run].pk, made[run].steps.get().key)
    place["approval"] = made["approving"].steps.get().pk
    schedules = [durable.schedules.create(asks, "0 9 * * *") for _ in range(2)]
    schedules[1].pause()
    place |= {"active": schedules[0].pk, "paused": schedules[1].pk}
    assert Schedule.objects.count() == 2
    return place
