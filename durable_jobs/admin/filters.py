"""List filters with static choices, which need no query for the values."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _

from durable_jobs import clock
from durable_jobs.admin.display import tail
from durable_jobs.admin.paging import OLDER
from durable_jobs.definitions.registry import registry
from durable_jobs.definitions.triggers import Event as EventTrigger
from durable_jobs.definitions.webhooks import Webhook
from durable_jobs.queries import run_filter

Choices = Iterable[tuple[Any, Any]]

#: The most names that a filter shows as links. More are suggestions of an input.
MAX_LINKS = 12

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
    More than ``MAX_LINKS`` names are suggestions of an input instead of links.
    """

    column = ""
    #: The list's other URL parameters, for the input's form.
    other_params: tuple[tuple[str, str], ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if len(self.lookup_choices) > MAX_LINKS:
            self.template = "admin/durable_jobs/name_filter.html"

    def names(self) -> Iterable[str]:
        """Return the declared names."""
        raise NotImplementedError

    def lookups(self, request: Any, model_admin: Any) -> Choices:
        """Return the declared names and the current one."""
        current = self.value()
        names = {*self.names(), *([] if current is None else [current])}
        return [(name, name) for name in sorted(names)]

    def value(self) -> str | None:
        """Return the name in the URL, or None if an empty input was submitted."""
        return super().value() or None

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Return the links, or only "All" beside an input."""
        found = super().choices(changelist)
        if len(self.lookup_choices) <= MAX_LINKS:
            return iter(found)
        self.other_params = tuple(
            (name, value)
            for name, values in changelist.filter_params.items()
            if name not in (self.parameter_name, OLDER)
            for value in values
        )
        return itertools.islice(found, 1)

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
