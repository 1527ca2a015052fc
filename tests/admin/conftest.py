"""Viewers, many rows, and a parser of pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from durable_jobs import clock, durable, ids
from durable_jobs.models import Event, Run, Step, Subject
from durable_jobs.statuses import RunStatus, StepStatus
from project.shop.models import Order, Tenant

MODELS = ("event", "run", "schedule", "step", "worker")

Viewer = Callable[..., Client]
Ask = Callable[..., Run]


def list_of(model: str) -> str:
    """Return the address of a list."""
    return reverse(f"admin:durable_jobs_{model}_changelist")


def page_of(row: Any) -> str:
    """Return the address of a row's page."""
    meta = row._meta
    return reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[row.pk])


@dataclass
class Page(HTMLParser):
    """A page's tags in order, as ``(tag, attributes)``, and its text."""

    source: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record a tag."""
        self.tags.append((tag, dict(attrs)))
        self.texts.append(" " if tag in ("dd", "dt", "td", "th", "title") else "")

    def handle_data(self, data: str) -> None:
        """Record a text."""
        self.texts.append(data)

    @property
    def text(self) -> str:
        """Return all the text, with single spaces."""
        return " ".join("".join(self.texts).split())

    def links(self, part: str = "") -> list[str]:
        """Return the targets of its links, those with ``part`` in them."""
        found = [attrs.get("href") or "" for tag, attrs in self.tags if tag == "a"]
        return [href for href in found if part in href]

    def rows(self, model: str) -> list[str]:
        """Return the linked pages of a model's rows, in order."""
        found = self.links(f"/{model}/")
        return [
            href.partition("?")[0]
            for href in found
            if href.partition("?")[0][-8:] == "/change/"
        ]

    def classes(self, part: str) -> list[str]:
        """Return the class attributes with ``part`` in them, in order."""
        found = [attrs.get("class") or "" for _, attrs in self.tags]
        return [one for one in found if part in one]


@pytest.fixture
def admin_client(db: None) -> Client:
    """Log in a superuser without a password: hashing takes time."""
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


@pytest.fixture
def viewer(db: None) -> Viewer:
    """Log in a staff user who may view the named models."""

    def login(*models: str, staff: bool = True) -> Client:
        user = User.objects.create_user("viewer", is_staff=staff)
        names = [f"view_{model}" for model in models]
        user.user_permissions.set(
            Permission.objects.filter(
                codename__in=names, content_type__app_label="durable_jobs"
            )
        )
        client = Client()
        client.force_login(user)
        return client

    return login


@pytest.fixture
def staff(db: None) -> Callable[..., Client]:
    """Log in a staff user with permissions, each as app.codename."""

    def login(*permissions: str) -> Client:
        user = User.objects.create_user("ann", is_staff=True)
        for name in permissions:
            app, _, codename = name.partition(".")
            user.user_permissions.add(
                Permission.objects.get(codename=codename, content_type__app_label=app)
            )
        client = Client()
        client.force_login(user)
        return client

    return login


@pytest.fixture
def get(admin_client: Client) -> Callable[[str], Page]:
    """Request a page as a superuser."""

    def ask(address: str) -> Page:
        response = admin_client.get(address)
        assert response.status_code == 200, (address, response.status_code)
        return Page(response.content.decode())

    return ask


def make_runs(count: int, **values: Any) -> list[Run]:
    """Insert completed runs, one a second, the last one now."""
    now = clock.now()
    times = [now - timedelta(seconds=count - number) for number in range(count)]
    return Run.objects.bulk_create(
        run(**{"queued_at": moment, **values}) for moment in times
    )


def run(queued_at: datetime, **values: Any) -> Run:
    """Return a completed run, not saved."""
    known: dict[str, Any] = {
        "id": ids.new_id(),
        "function": "tests.made",
        "status": RunStatus.COMPLETED,
        "trigger": "tests/event",
        "data": {"large": "x" * 2000},
        "output": {"large": "y" * 2000},
        "due_at": queued_at,
        "run_order": queued_at,
        "queued_at": queued_at,
        "started_at": queued_at,
        "ended_at": queued_at + timedelta(seconds=1),
    }
    return Run(**{**known, **values})


def make_steps(of: Run, count: int, **values: Any) -> list[Step]:
    """Insert completed steps."""
    assert of.started_at is not None
    rows = []
    for number in range(count):
        key = ids.step_key(f"step {number}")
        known: dict[str, Any] = {
            "id": ids.step_pk(of.pk, key),
            "run": of,
            "key": key,
            "name": f"step {number}",
            "kind": "run",
            "position": number,
            "status": StepStatus.COMPLETED,
            "output": "z" * 2000,
            "started_at": of.started_at,
            "ended_at": of.started_at + timedelta(milliseconds=10),
        }
        rows.append(Step(**{**known, **values}))
    return Step.objects.bulk_create(rows)


def make_events(count: int, **values: Any) -> list[Event]:
    """Insert events that arrived at the same moment."""
    now = clock.now()
    known: dict[str, Any] = {
        "name": "tests/event",
        "data": {"large": "x" * 2000},
        "ts": now,
        "received_at": now,
        "source": "send",
        "pending": False,
    }
    return Event.objects.bulk_create(
        Event(id=str(ids.new_id()), **{**known, **values}) for _ in range(count)
    )


@pytest.fixture
def operator(db: None) -> Viewer:
    """Log in a staff user with the named permissions on runs."""

    def login(*names: str, username: str = "operator") -> Client:
        user = User.objects.create_user(username, is_staff=True)
        user.user_permissions.set(
            Permission.objects.filter(
                codename__in=names, content_type__app_label="durable_jobs"
            )
        )
        client = Client()
        client.force_login(user)
        return client

    return login


def make_orders(count: int) -> list[Order]:
    """Insert orders of one tenant."""
    tenant, _ = Tenant.objects.get_or_create(name="Acme")
    return [Order.objects.create(tenant=tenant, total=40) for _ in range(count)]


def make_live(count: int, **values: Any) -> list[Run]:
    """Insert waiting runs."""
    return make_runs(count, status="waiting", ended_at=None, output=None, **values)


def about(order: Order, runs: list[Run]) -> list[Run]:
    """Link runs to an order, and return them."""
    Subject.objects.bulk_create(
        Subject(run=run, model="shop.order", object_pk=str(order.pk)) for run in runs
    )
    return runs


@pytest.fixture
def ask(durable_kit) -> Ask:
    """Let a run ask for an approval; return the run."""

    @durable.function(id="tests.ask")
    def asking(ctx):
        try:
            given = ctx.step.approve("may we", **how[ctx.event.data["n"]])
        except durable.ApprovalRejected as rejected:
            return f"{rejected.by}: {rejected.reason}"
        return None if given is None else {k: str(v) for k, v in given.items()}

    def begin(title="Pay 7", permission="shop.change_order", about=None, **more) -> Run:
        how.append({"title": title, "permission": permission, **more})
        run = asking.enqueue({"n": len(how) - 1, "about": about})
        durable_kit.run_until_idle()
        run.refresh_from_db()
        assert run.status == "waiting", run.error
        return run

    how: list[dict[str, Any]] = []
    return begin


@pytest.fixture
def login(db) -> Callable[..., Client]:
    """Log in a staff user with the named permissions."""

    def enter(*codenames: str, name: str = "ann", staff: bool = True) -> Client:
        user = User.objects.create_user(name, is_staff=staff)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client()
        client.force_login(user)
        return client

    return enter
