"""The admin of steps: the list, and the page of a step with its attempts."""

from __future__ import annotations

import json
import uuid
from typing import Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from durable_jobs.admin.base import ReadOnlyAdmin
from durable_jobs.admin.descriptions import describe_decision, describe_wait
from durable_jobs.admin.display import badge, elapsed, length, moment, short
from durable_jobs.admin.filters import (
    ChoiceFilter,
    LinkedFilter,
    OlderFilter,
    PeriodFilter,
    identity,
)
from durable_jobs.admin.links import Links
from durable_jobs.admin.payloads import error, payload, stored
from durable_jobs.admin.related import RUN_PAYLOADS, Related
from durable_jobs.admin.runs import log_lines
from durable_jobs.engine.context import PATCH
from durable_jobs.engine.step_runner import GROUP, KINDS
from durable_jobs.engine.steps.parallel import BRANCH
from durable_jobs.models import STEP_PAYLOADS, FailedAttempt, Run, Step, Wait
from durable_jobs.queries.run_filter import earliest_id
from durable_jobs.statuses import StepStatus
from durable_jobs.store import db

#: Failed attempts and waits on the page of a step.
MOST = 25


class StatusFilter(ChoiceFilter):
    """Filter steps by status."""

    title = _("status")
    parameter_name = "status"
    beside = ("run", "queued")

    def choices_of_column(self) -> Any:
        return StepStatus.choices


class KindFilter(ChoiceFilter):
    """Filter steps by kind."""

    title = _("kind")
    parameter_name = "kind"
    beside = ("run", "queued")

    def choices_of_column(self) -> Any:
        kinds = {operation.kind for operation in KINDS} | {BRANCH, GROUP, PATCH}
        return [(kind, kind.replace("_", " ")) for kind in sorted(kinds)]


class ByRun(LinkedFilter):
    """Filter steps by run."""

    title = _("run")
    parameter_name = "run"

    def narrow(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(run_id=identity(value))


class RunQueuedFilter(PeriodFilter):
    """Filter steps by the age of their run. Step ids start with the run's time."""

    title = _("run queued")
    parameter_name = "queued"

    def since(self, queryset: QuerySet[Any], moment: Any) -> QuerySet[Any]:
        return queryset.filter(pk__gte=earliest_id(moment))


@admin.register(Step)
class StepAdmin(ReadOnlyAdmin):
    """Steps of the newest runs first. Steps of one run are in recorded order."""

    payloads = STEP_PAYLOADS

    list_display_links = ("name",)
    list_filter = (ByRun, RunQueuedFilter, StatusFilter, KindFilter, OlderFilter)
    search_fields = ("=id",)
    search_help_text = _("Run id (exact).")

    summary_fields = (
        "step_status",
        "kind_display",
        "started",
        "ended",
        "duration",
        "failures",
        "decision",
    )
    payload_fields = (
        (_("Error"), "error"),
        (_("Input"), "input"),
        (_("Output"), "output"),
        (_("Detail"), "detail"),
        (_("Log lines"), "logs"),
    )

    def get_list_display(self, request: HttpRequest) -> Any:
        """Return the columns. The run is a link if the viewer may see it."""
        links = Links(self.admin_site, request)

        @admin.display(description=_("run"))
        def run(step: Step) -> Any:
            return _run_link(step, links)

        columns = ("kind_display", "step_status", "failures", "started", "duration")
        return ["name", run, *columns]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        large = [f"run__{name}" for name in RUN_PAYLOADS]
        return super().get_queryset(request).select_related("run").defer(*large)

    def get_ordering(self, request: HttpRequest) -> Any:
        """Return recorded order for one run, and newest first otherwise."""
        return ("position", "id") if "run" in request.GET else ("-id",)

    def get_paginator(
        self, request: HttpRequest, queryset: Any, per_page: int, *args: Any, **kw: Any
    ) -> Any:
        """Return uncapped pages for one run, since a run's steps are limited."""
        if "run" in request.GET:
            return Paginator(queryset, per_page, *args, **kw)
        return super().get_paginator(request, queryset, per_page, *args, **kw)

    def sections(self, row: Any, links: Links) -> dict[str, Any]:
        """Return the step's run, parent, waits, failed attempts and child runs."""
        groups = (
            (_("run"), [_run_link(row, links)]),
            (_("inside"), _above(row, links)),
            (_("waits"), _waits(row, links)),
        )
        return {
            "neighbours": [(label, found) for label, found in groups if found],
            "attempts": self._attempts(row, links),
            "runs": Related(row.run, links, parent_step=row.key).started,
        }

    def older_than(self, row: Step) -> dict[str, Any] | None:
        return {"before": row.pk}

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Return the steps of a run."""
        if not search_term.strip():
            return queryset, False
        try:
            return queryset.filter(run_id=uuid.UUID(search_term.strip())), False
        except ValueError:
            return queryset.none(), False

    @admin.display(description=_("status"))
    def step_status(self, step: Step) -> Any:
        return badge(step)

    @admin.display(description=_("kind"))
    def kind_display(self, step: Step) -> str:
        return step.kind.replace("_", " ")

    @admin.display(description=_("failed attempts"))
    def failures(self, step: Step) -> int | None:
        """Return how many attempts failed and were retried."""
        return step.attempt or None

    @admin.display(description=_("started"))
    def started(self, step: Step) -> Any:
        """Return when the last attempt started."""
        return moment(step.started_at)

    @admin.display(description=_("ended"))
    def ended(self, step: Step) -> Any:
        return moment(step.ended_at, step.started_at)

    @admin.display(description=_("duration"))
    def duration(self, step: Step) -> Any:
        """Return the duration, until now if the step has not ended."""
        return length(elapsed(step))

    @admin.display(description=_("decision"))
    def decision(self, step: Any) -> str | None:
        """Return the decision and its user."""
        if step.kind != "approve":
            return None
        try:
            return describe_decision(
                step.kind, json.loads(getattr(step, "detail_text", ""))
            )
        except ValueError:
            return None

    @admin.display(description=_("error"))
    def error_display(self, step: Any) -> Any:
        return error(step.error_text)

    @admin.display(description=_("input"))
    def input_display(self, step: Any) -> Any:
        """Return the arguments of its body."""
        return payload(step.input_text, _("Input"), step.references)

    @admin.display(description=_("output"))
    def output_display(self, step: Any) -> Any:
        return payload(step.output_text, _("Output"), step.references)

    @admin.display(description=_("detail"))
    def detail_display(self, step: Any) -> Any:
        """Return the engine's record of the step."""
        return payload(step.detail_text, _("Detail"), step.references)

    @admin.display(description=_("log lines"))
    def logs_display(self, step: Step) -> Any:
        return log_lines.table(step.logs)  # the stored log lines are bounded

    def _attempts(self, step: Step, links: Links) -> list[dict[str, Any]]:
        rows = (
            _of(FailedAttempt, step).defer("error").annotate(error_text=stored("error"))
        )
        show_payloads = self.may_view_payloads(links.request, step)
        return [
            {
                "number": attempt.number + 1,
                "ended": moment(attempt.ended_at),
                "took": length(elapsed(attempt)),
                "error": error(attempt.error_text, show_payloads),
                "lines": log_lines.table(attempt.logs)
                if show_payloads or attempt.logs is None
                else self.hidden(attempt),
            }
            for attempt in rows.order_by("-pk")[:MOST]
        ]


def _run_link(step: Step, links: Links) -> SafeString:
    label = format_html("{} {}", step.run.function, short(step.run_id))
    return links.anchor(links.page(Run, step.run_id), label)


def _above(step: Step, links: Links) -> list[SafeString]:
    if step.parent_id is None:
        return []
    rows = db.rows(Step).filter(pk=step.parent_id)
    name = rows.values_list("name", flat=True).first()
    return [links.anchor(links.page(Step, step.parent_id), name)] if name else []


def _waits(step: Step, links: Links) -> list[SafeString]:
    rows = _of(Wait, step).defer("condition").order_by("pk")
    found = list(rows[:MOST])
    for wait in found:
        wait.run = step.run  # permissions are checked against the run
    return [describe_wait(wait, links) for wait in found]


def _of(model: Any, step: Step) -> QuerySet[Any]:
    rows: QuerySet[Any] = db.rows(model)
    return rows.filter(run_id=step.run_id, step=step.key)
