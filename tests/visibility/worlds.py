"""The data of a tenant: runs in every state, and their related rows."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import Permission, User

from durable_jobs import durable
from durable_jobs.control import api_keys, bulk
from durable_jobs.control import pauses as pause_control
from durable_jobs.control.actor import Actor
from durable_jobs.control.scopes import SCOPES
from durable_jobs.models import (
    Event,
    Limit,
    Pause,
    Run,
    SavedView,
    Schedule,
    SweepError,
)
from durable_jobs.progress.tokens import ProgressView
from durable_jobs.queries.run_filter import RunFilter
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant


def declare() -> dict[str, Any]:
    """Declare the functions that both tenants use."""

    def body(text: str) -> str:
        logging.getLogger("project").warning("logged %s", text)
        return text

    @durable.function(id="tests.works", retries=0)
    def works(ctx):
        # a schedule's data contains the word
        given = ctx.event.data.get("data") or ctx.event.data
        secret = given["secret"]
        ctx.step.run("work", body, secret)
        if given.get("fails"):
            raise ValueError(secret)
        return secret

    @durable.function(
        id="tests.limited",
        concurrency=durable.Concurrency(1, key="event.data.secret", of="runs"),
    )
    def limited(ctx):
        ctx.step.sleep("long", "30d")

    @durable.function(id="tests.asks")
    def asks(ctx):
        title = f"Pay {ctx.event.data['secret']}?"
        ctx.step.approve("boss", title=title, permission="shop.settle_complaint")

    @durable.function(id="tests.hears", on=durable.Event("tests/placed"))
    def hears(ctx):
        ctx.step.wait_for_signal("word", ctx.event.data["secret"], timeout="30d")

    @durable.function(id="tests.parent")
    def parent(ctx):
        return ctx.step.invoke("child", works, ctx.event.data)

    made = (works, limited, asks, hears, parent)
    return {one.id.removeprefix("tests."): one for one in made}


@dataclass
class World:
    """A tenant, its user, and its secret word."""

    name: str
    secret: str
    kit: Kit
    functions: dict[str, Any]
    runs: dict[str, Run] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tenant = Tenant.objects.create(name=self.name)
        self.order = Order.objects.create(tenant=tenant, total=1)
        self.user = User.objects.create_user(self.name, is_staff=True)
        self.user.user_permissions.set(Permission.objects.all())
        made = api_keys.create(Actor(self.fresh()), self.name, list(SCOPES))
        self.key, self.key_text = made.key, made.text

    def fresh(self) -> User:
        """Return the user without cached permissions, as a request loads it."""
        return User.objects.get(pk=self.user.pk)

    @property
    def data(self) -> dict[str, Any]:
        """Return the data of its runs."""
        return {"order": self.order, "secret": self.secret}

    def fill(self, root: Actor) -> None:
        """Create every kind of row that refers to the tenant."""
        works, limited = self.functions["works"], self.functions["limited"]
        start = works.using(key=f"{self.secret}-key")
        self.runs["done"] = start.enqueue(self.data)
        self.runs["failed"] = works.enqueue({**self.data, "fails": True})
        self.runs["holds"] = limited.enqueue(self.data)
        self.runs["blocked"] = limited.enqueue(self.data)
        self.runs["asks"] = self.functions["asks"].enqueue(self.data)
        self.runs["parent"] = self.functions["parent"].enqueue(self.data)
        self.event = durable.send("tests/placed", self.data, id=f"{self.secret}-event")
        schedule = durable.schedules.create(
            works, cron="0 3 * * *", owner=self.order, data=self.data, name=self.secret
        )
        self.kit.run_until_idle()
        schedule.run_now()
        self.kit.run_until_idle()
        self.runs["hears"] = Run.objects.get(event_id=self.event)
        self.runs["paused"] = self.functions["asks"].enqueue(self.data)
        self.kit.run_until_idle()
        self.runs["paused"].pause(reason=self.secret)
        self.schedule = Schedule.objects.get(pk=schedule.pk)
        pause_control.pause_function(
            limited, key=self.secret, skip=False, reason=self.secret
        )
        self.pause = Pause.objects.get(key__contains=self.secret)
        self.limit = Limit.objects.get(key__contains=self.secret)
        chosen = RunFilter.parse({"key": f"{self.secret}-key"})
        self.runs["bulk"] = bulk.begin(root, "retry", chosen, self.secret)
        SavedView.objects.create(
            owner=str(root.user.pk), page="run", name=self.secret, shared=True,
            query=f"key={self.secret}", created_at=self.kit.now(),
        )  # fmt: skip
        now = self.kit.now()
        self.sweep_error = SweepError.objects.create(
            kind="wait", item=self.secret, run_id=self.runs["holds"].pk,
            message=self.secret, since=now, last_at=now, until=now,
        )  # fmt: skip
        self.kit.run_until_idle()
        for name, run in self.runs.items():
            self.runs[name] = Run.objects.get(pk=run.pk)
        self.step = self.runs["done"].steps.get()
        self.asked = self.runs["asks"].steps.get()
        self.stored = Event.objects.get(pk=self.event)

    def token(self) -> str:
        """Return the token of a progress page of its run."""
        return ProgressView(self.runs["holds"].pk).token()

    def traces(self) -> list[str]:
        """Return the strings that would reveal it elsewhere."""
        return [self.secret, *(str(run.pk) for run in self.runs.values())]
