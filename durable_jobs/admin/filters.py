"""List filters with static choices, which need no query for the values."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _

from durable_jobs import clock
from durable_jobs.admin.display import tail
from durable_jobs.definitions.registry import registry
from durable_jobs.definitions.triggers import Event as EventTrigger
from durable_jobs.definitions.webhooks import Webhook
from durable_jobs.queries import run_filter

Choices = Iterable[tuple[Any, Any]]

PERIODS = {
    "hour": _("Past hour"),
    "day": _("Past 24 hours"),
    "week": _("Past 7 days"),
    "month": _("Past 30 days"),
}


class ChoiceFilter(SimpleListFilter):
    """Filter rows by a column with fixed choices. The parameter is the column's name.

    A column without an index needs one of the ``beside`` parameters in the URL, which
    leave few enough rows to scan. Without them the filter is not shown.
    """

    beside: tuple[str, ...] = ()

    def lookups(self, request: Any, model_admin: Any) -> Choices:
        """Return the choices, or none if the filter would scan too many rows."""
        selective = not self.beside or any(name in request.GET for name in self.beside)
        return self.choices_of_column() if selective else []

    def choices_of_column(self) -> Choices:
        """Return the values with their labels."""
        raise NotImplementedError

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value is None:
            return queryset
        if value not in {key for key, _label in self.lookup_choices}:
            raise IncorrectLookupParameters
        return queryset.filter(**{str(self.parameter_name): value})


class NameFilter(SimpleListFilter):
    """Filter rows by a name.

    The choices are the names that your project declares. The URL may hold any other.
    """

    column = ""

    def names(self) -> Iterable[str]:
        """Return the declared names."""
        raise NotImplementedError

    def lookups(self, request: Any, model_admin: Any) -> Choices:
        """Return the declared names and the current one."""
        current = self.value()
        names = {*self.names(), *([] if current is None else [current])}
        return [(name, name) for name in sorted(names)]

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value is None:
            return queryset
        return queryset.filter(
            **{self.column or str(self.parameter_name): plain(value)}
        )


class FunctionFilter(NameFilter):
    """Filter by function."""

    title = _("function")
    parameter_name = "function"

    def names(self) -> Iterable[str]:
        return registry.ids()


class EventNameFilter(NameFilter):
    """Filter events by the names that functions listen to."""

    title = _("name")
    parameter_name = "name"

    def names(self) -> Iterable[str]:
        """Return the event names of all triggers."""
        triggers = [t for f in registry for t in f.triggers]
        names = {t.name for t in triggers if isinstance(t, EventTrigger)}
        names |= {t.event for t in triggers if isinstance(t, Webhook)}
        return [name for name in names if not name.endswith("*")]


class PeriodFilter(SimpleListFilter):
    """Filter rows by age."""

    column = ""

    def lookups(self, request: Any, model_admin: Any) -> Choices:
        return PERIODS.items()

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value is None:
            return queryset
        if value not in PERIODS:
            raise IncorrectLookupParameters
        return self.since(queryset, clock.now() - run_filter.PERIODS[value])

    def since(self, queryset: QuerySet[Any], moment: Any) -> QuerySet[Any]:
        """Return the rows that are no older than ``moment``."""
        return queryset.filter(**{f"{self.column}__gte": moment})


class LinkedFilter(SimpleListFilter):
    """A filter that only links set. It is shown, and can be removed, while active."""

    def lookups(self, request: Any, model_admin: Any) -> Choices:
        """Return the current value as the only choice."""
        value = self.value()
        return [] if value is None else [(value, tail(value))]

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        return queryset if value is None else self.narrow(queryset, plain(value))

    def narrow(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the rows for ``value``."""
        raise NotImplementedError


class OlderFilter(LinkedFilter):
    """Filter rows below an id, to continue after the last numbered page."""

    title = _("older than")
    parameter_name = "before"

    def narrow(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(pk__lt=identity(value))


def plain(value: str) -> str:
    """Return a URL value. Raise if it contains a NUL character."""
    if "\x00" in value:
        raise IncorrectLookupParameters
    return value


def identity(value: str) -> uuid.UUID:
    """Parse a UUID from a URL. Raise if it is invalid."""
    try:
        return uuid.UUID(value)
    except ValueError:
        raise IncorrectLookupParameters from None
