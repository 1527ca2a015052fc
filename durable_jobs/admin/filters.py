"""Filters whose choices are known beforehand: none asks the table for its values."""

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
    """Rows in which a column is one of the choices; the parameter is its name.

    A column without an index is filtered ``beside`` one of the parameters that leave
    few enough rows to look through; without any, it is not selective.
    """

    beside: tuple[str, ...] = ()

    def lookups(self, request: Any, model_admin: Any) -> Choices:
        """Offer the choices, if the rows may be looked through."""
        selective = not self.beside or any(name in request.GET for name in self.beside)
        return self.choices_of_column() if selective else []

    def choices_of_column(self) -> Choices:
        """Return the values and what they are called."""
        raise NotImplementedError

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows with the chosen value."""
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
        """Return the names that the code knows."""
        raise NotImplementedError

    def lookups(self, request: Any, model_admin: Any) -> Choices:
        """Offer the code's names, and the one that is current for."""
        current = self.value()
        names = {*self.names(), *([] if current is None else [current])}
        return [(name, name) for name in sorted(names)]

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows of the chosen name."""
        value = self.value()
        if value is None:
            return queryset
        return queryset.filter(
            **{self.column or str(self.parameter_name): plain(value)}
        )


class FunctionFilter(NameFilter):
    """Runs of a function."""

    title = _("function")
    parameter_name = "function"

    def names(self) -> Iterable[str]:
        """Return the ids of the registered functions."""
        return registry.ids()


class EventNameFilter(NameFilter):
    """Events of a name that a function listens to."""

    title = _("name")
    parameter_name = "name"

    def names(self) -> Iterable[str]:
        """Return the event names that functions have as triggers."""
        triggers = [t for f in registry for t in f.triggers]
        names = {t.name for t in triggers if isinstance(t, EventTrigger)}
        names |= {t.event for t in triggers if isinstance(t, Webhook)}
        return [name for name in names if not name.endswith("*")]


class PeriodFilter(SimpleListFilter):
    """Rows since some time ago."""

    column = ""

    def lookups(self, request: Any, model_admin: Any) -> Choices:
        """Offer the periods."""
        return PERIODS.items()

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows of the period."""
        value = self.value()
        if value is None:
            return queryset
        if value not in PERIODS:
            raise IncorrectLookupParameters
        return self.since(queryset, clock.now() - run_filter.PERIODS[value])

    def since(self, queryset: QuerySet[Any], moment: Any) -> QuerySet[Any]:
        """Return the rows that are not older than a moment."""
        return queryset.filter(**{f"{self.column}__gte": moment})


class LinkedFilter(SimpleListFilter):
    """A narrowing that a link has made: shown, and to be left, while in force."""

    def lookups(self, request: Any, model_admin: Any) -> Choices:
        """Offer what is in force, if anything is."""
        value = self.value()
        return [] if value is None else [(value, tail(value))]

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the narrowed rows."""
        value = self.value()
        return queryset if value is None else self.narrow(queryset, plain(value))

    def narrow(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the rows that belong to a value."""
        raise NotImplementedError


class OlderFilter(LinkedFilter):
    """Rows with an id before one: where the numbered pages end, the next ones begin."""

    title = _("older than")
    parameter_name = "before"

    def narrow(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the rows with smaller ids."""
        return queryset.filter(pk__lt=identity(value))


def plain(value: str) -> str:
    """Return a text from an address unless no column could hold it."""
    if "\x00" in value:
        raise IncorrectLookupParameters
    return value


def identity(value: str) -> uuid.UUID:
    """Return the id that an address names."""
    try:
        return uuid.UUID(value)
    except ValueError:
        raise IncorrectLookupParameters from None
