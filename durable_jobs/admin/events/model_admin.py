"""Events: the list of those that came."""

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
    """Events by where they came from."""

    title = _("source")
    parameter_name = "source"
    beside = ("name", "received")

    def choices_of_column(self) -> Any:
        """Return the sources that there are."""
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
    """Events since some time ago."""

    title = _("received")
    parameter_name = "received"
    column = "received_at"


class OlderEventsFilter(LinkedFilter):
    """Events behind one in the list: a time and, as many may share it, an id."""

    title = _("older than")
    parameter_name = "before"

    def narrow(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the events that follow in the list."""
        time, _space, key = value.partition(" ")
        try:
            last = datetime.fromisoformat(time)
        except ValueError:
            raise IncorrectLookupParameters from None
        if last.utcoffset() is None:
            raise IncorrectLookupParameters
        # The first condition is all that an index can use, and says nothing else.
        return queryset.filter(
            Q(received_at__lt=last) | Q(pk__lt=key), received_at__lte=last
        )


@admin.register(Event)
class EventAdmin(EventPages):
    """Events, those that came last first."""

    payloads = ("data", "user")

    list_display = ("short_id", "name", "source", "happened", "received")
    list_filter = (ReceivedFilter, EventNameFilter, SourceFilter, OlderEventsFilter)
    ordering = ("-received_at", "-id")
    search_fields = ("=id",)
    search_help_text = _("A whole id or a whole name.")

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
        """Return the filter for the events that follow one in the list."""
        return {"before": f"{row.received_at.isoformat()} {row.pk}"}

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find events by a whole id or name."""
        term = search_term.strip()
        if not term:
            return queryset, False
        # One or the other: an index answers either, in order, and not both at once.
        known = queryset.filter(pk=term)
        return (known if known.exists() else queryset.filter(name=term)), False

    @admin.display(description=_("event"))
    def short_id(self, event: Event) -> Any:
        """Return the end of the id."""
        return short(event.pk)

    @admin.display(description=_("happened"))
    def happened(self, event: Event) -> Any:
        """Return the time that the event says."""
        return moment(event.ts)

    @admin.display(description=_("received"))
    def received(self, event: Event) -> Any:
        """Return when it was stored."""
        return moment(event.received_at, event.ts)

    @admin.display(description=_("matching"))
    def matching(self, event: Event) -> str:
        """Return how far the router is with an event that took more than one turn."""
        return routes.described(event)

    @admin.display(description=_("data"))
    def data_display(self, event: Any) -> Any:
        """Return what it carries."""
        return payload(event.data_text, event.references)

    @admin.display(description=_("user"))
    def user_display(self, event: Any) -> Any:
        """Return whom it is about."""
        return payload(event.user_text, event.references)
