"""The list of events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from durable_jobs.admin.display import moment, short
from durable_jobs.admin.events.views import EventPages
from durable_jobs.admin.filters import (
    ChoiceFilter,
    EventNameFilter,
    LinkedFilter,
    PeriodFilter,
)
from durable_jobs.admin.payloads import payload
from durable_jobs.control import send
from durable_jobs.events import model_changes, send_event
from durable_jobs.models import Event
from durable_jobs.queries import routes


class SourceFilter(ChoiceFilter):
    """Filter events by source."""

    title = _("source")
    parameter_name = "source"
    beside = ("name", "received")

    def choices_of_column(self) -> Any:
        return [
            (send_event.SEND, _("send")),
            (send_event.STEP, _("step")),
            (send.ADMIN, _("admin")),
            ("api", _("API")),
            (model_changes.MODEL, _("model")),
            ("cron", _("cron")),
            ("webhook", _("webhook")),
        ]


class ReceivedFilter(PeriodFilter):
    """Filter events by age."""

    title = _("received")
    parameter_name = "received"
    column = "received_at"


class OlderEventsFilter(LinkedFilter):
    """Filter events after one in the list, by its time and id."""

    title = _("older than")
    parameter_name = "before"

    def narrow(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        time, _space, key = value.partition(" ")
        try:
            last = datetime.fromisoformat(time)
        except ValueError:
            raise IncorrectLookupParameters from None
        if last.utcoffset() is None:
            raise IncorrectLookupParameters
        # Redundant, but the only condition that the index can use.
        return queryset.filter(
            Q(received_at__lt=last) | Q(pk__lt=key), received_at__lte=last
        )


@admin.register(Event)
class EventAdmin(EventPages):
    """Events, newest first."""

    payloads = ("data", "user")

    list_display = ("short_id", "name", "source", "happened", "received")
    list_filter = (ReceivedFilter, EventNameFilter, SourceFilter, OlderEventsFilter)
    ordering = ("-received_at", "-id")
    search_fields = ("=id",)
    search_help_text = _("Event id or name (exact).")

    summary_fields = (
        "source",
        "happened",
        "received",
        "v",
        "pending",
        "matching",
        "depth",
    )
    payload_fields = ((_("Data"), "data"), (_("User"), "user"))

    def older_than(self, row: Event) -> dict[str, Any] | None:
        return {"before": f"{row.received_at.isoformat()} {row.pk}"}

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Return the events with exactly this id or name."""
        term = search_term.strip()
        if not term:
            return queryset, False
        # An index serves either condition in order, but not both combined.
        known = queryset.filter(pk=term)
        return (known if known.exists() else queryset.filter(name=term)), False

    @admin.display(description=_("event"))
    def short_id(self, event: Event) -> Any:
        return short(event.pk)

    @admin.display(description=_("happened"))
    def happened(self, event: Event) -> Any:
        """Return the event's own time."""
        return moment(event.ts)

    @admin.display(description=_("received"))
    def received(self, event: Event) -> Any:
        return moment(event.received_at, event.ts)

    @admin.display(description=_("matching"))
    def matching(self, event: Event) -> str:
        """Return the router's progress on an event that takes several batches."""
        return routes.described(event)

    @admin.display(description=_("data"))
    def data_display(self, event: Any) -> Any:
        return payload(event.data_text, _("Data"), event.references)

    @admin.display(description=_("user"))
    def user_display(self, event: Any) -> Any:
        return payload(event.user_text, _("User"), event.references)
