"""Filters of the run list: read from the URL, shown, and edited in a form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from django.contrib.admin.views.main import ERROR_FLAG, IGNORED_PARAMS, PAGE_VAR
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from durable_jobs.admin.display import tail
from durable_jobs.admin.filters import PERIODS
from durable_jobs.admin.pages import actor_of
from durable_jobs.exceptions import FilterError
from durable_jobs.queries.run_filter import MAX_SEARCHED, TIMES, RunFilter
from durable_jobs.statuses import RunStatus

Params = dict[str, list[str]]

SEARCH = "q"
#: URL parameters of a list that are not filters.
_NOT_CONDITIONS = {PAGE_VAR, ERROR_FLAG, *IGNORED_PARAMS} - {SEARCH}
LABELS: dict[str, str | Promise] = {
    "q": gettext_lazy("search"),
    "status": gettext_lazy("status"),
    "function": gettext_lazy("function"),
    "period": gettext_lazy("period"),
    "time": gettext_lazy("time field"),
    "since": gettext_lazy("since"),
    "until": gettext_lazy("until"),
    "subject": gettext_lazy("subject"),
    "key": gettext_lazy("key"),
    "trigger": gettext_lazy("trigger"),
    "version": gettext_lazy("version"),
    "queue": gettext_lazy("queue"),
    "worker": gettext_lazy("worker"),
    "event": gettext_lazy("event"),
    "parent": gettext_lazy("parent"),
    "id": gettext_lazy("run"),
    "where": gettext_lazy("data, output or error"),
    "before": gettext_lazy("older than"),
}
_TIMES = {
    "queued": gettext_lazy("queued"),
    "started": gettext_lazy("started"),
    "ended": gettext_lazy("ended"),
}
#: Inputs of the form, each with an example.
_INPUTS: dict[str, str | Promise] = {
    "time": "",
    "since": "",
    "until": "",
    "subject": "shop.order:42",
    "key": "",
    "trigger": "shop/order.placed",
    "version": "",
    "queue": "default",
    "worker": "",
    "event": gettext_lazy("the id of an event"),
    "parent": gettext_lazy("the id of a run"),
    "id": gettext_lazy("the id of a run"),
    "where": "data.order.id=42",
}
_MOMENTS = ("since", "until")


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveFilter:
    """An active filter, and the URL of the list without it."""

    label: str | Promise
    value: str | Promise
    without: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """An input of the filter form."""

    name: str
    label: str | Promise
    value: str
    hint: str | Promise = ""
    kind: str = "text"
    choices: tuple[tuple[str, str | Promise, bool], ...] = ()
    error: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True)
class Conditions:
    """The filters in the URL of a list. ``error`` is set if one is invalid."""

    params: Params
    payloads: bool = True
    error: FilterError | None = field(default=None)

    @property
    def active_filters(self) -> list[ActiveFilter]:
        """Return the active filters."""
        return [one for name in self.params for one in self._active(name)]

    def _active(self, name: str) -> Iterator[ActiveFilter]:
        label, values = LABELS.get(name, name), self.params[name]
        if name == "id" and len(values) > 1:
            count, without = str(len(values)), self._address(name, None)
            yield ActiveFilter(label=_("selected runs"), value=count, without=without)
            return
        for value in values:
            without = self._address(name, value)
            yield ActiveFilter(
                label=label, value=_display_value(name, value), without=without
            )

    @property
    def inputs(self) -> Iterator[Input]:
        """Yield the inputs of the form with their values."""
        for name, hint in _INPUTS.items():
            if name == "where" and not self.payloads:
                continue
            values = self.params.get(name, [])
            if name == "id" and len(values) > 1:
                continue  # a selection of runs, kept in hidden inputs
            shown = [*values, ""] if name == "where" else values[:1] or [""]
            for number, value in enumerate(shown):
                yield self._input(name, value, hint, number)

    def _input(self, name: str, value: str, hint: Any, number: int) -> Input:
        wrong = self.error is not None and self.error.name == name and value
        common: dict[str, Any] = {
            "name": name,
            "label": LABELS[name],
            "error": self.error.message if self.error and wrong else "",
            "number": number,
        }
        if name == "time":
            choices = tuple((key, text, key == value) for key, text in _TIMES.items())
            return Input(value=value, choices=choices, **common)
        if (
            name in _MOMENTS and not wrong
        ):  # a datetime input cannot show an invalid value
            return Input(value=_local(value), kind="datetime-local", **common)
        return Input(value=value, hint=hint, **common)

    @property
    def hidden(self) -> list[tuple[str, str]]:
        """Return the active filters that have no input, as hidden inputs."""
        kept = {*LABELS} - {*_INPUTS, "before"}
        if len(self.params.get("id", [])) > 1:
            kept.add("id")
        if not self.payloads:
            kept.add("where")
        found = self.params.items()
        return [
            (name, value) for name, values in found for value in values if name in kept
        ]

    @property
    def expanded(self) -> bool:
        """Return whether the form is open: it has an active filter or an error."""
        return self.error is not None or any(name in _INPUTS for name in self.params)

    @property
    def message(self) -> str:
        """Return the error message if no input shows it."""
        if self.error is None or any(one.error for one in self.inputs):
            return ""
        return self.error.message

    @property
    def unindexed(self) -> str:
        """Return the labels of filters that search the newest runs only."""
        names = RunFilter({name: tuple(v) for name, v in self.params.items()})
        labels = {**LABELS, "time": _TIMES["started"]}
        return ", ".join(str(labels[name]) for name in names.unindexed)

    @property
    def search_limit(self) -> str:
        """Return how many of the newest runs are searched."""
        return f"{MAX_SEARCHED:,}"

    def query(self, *, without: str = "before") -> str:
        """Return the filters as a query string, without one of them."""
        kept = {name: found for name, found in self.params.items() if name != without}
        return urlencode(sorted(kept.items()), doseq=True)

    def _address(self, name: str, value: str | None) -> str:
        left = [one for one in self.params[name] if value is not None and one != value]
        kept = {**self.params, name: left}
        if name != "before":
            kept.pop("before", None)
        return "?" + urlencode(sorted(kept.items()), doseq=True)


def read(request: HttpRequest) -> Conditions:
    """Return the filters in the URL of a request."""
    show_payloads = actor_of(request).may("durable_jobs.view_payload")
    found = params(request)
    try:
        requested_filter(request)
    except FilterError as error:
        return Conditions(found, show_payloads, error)
    return Conditions(found, show_payloads)


def params(request: HttpRequest) -> Params:
    """Return the filter parameters in a request's URL without empty ones."""
    found = {
        name: [value for value in values if value.strip()]
        for name, values in request.GET.lists()
        if name not in _NOT_CONDITIONS and not name.startswith("_")
    }
    if SEARCH in found:  # a NUL character in a search would be an error
        found[SEARCH] = [one for one in found[SEARCH] if "\x00" not in one][-1:]
    return {name: values for name, values in found.items() if values}


def has_blanks(request: HttpRequest) -> bool:
    """Return whether the URL has empty filters, as submitted forms leave them."""
    return any(
        name in LABELS and name != SEARCH and not all(values)
        for name, values in request.GET.lists()
    )


def requested_filter(request: HttpRequest) -> RunFilter:
    """Return the filter in the URL of a request.

    Raise ``FilterError`` if it is invalid, or reads payloads that the user may not see.
    """
    return allowed(request, RunFilter.parse(params(request)))


def allowed(request: HttpRequest, found: RunFilter) -> RunFilter:
    """Return a filter. Raise ``FilterError`` if the user may not use it."""
    if found.reads_payloads and not actor_of(request).may("durable_jobs.view_payload"):
        error = FilterError(_("You may not filter by payloads: you may not see them."))
        error.name = "where"
        raise error
    return found


def describe(found: RunFilter) -> list[str]:
    """Return descriptions of the conditions of a filter."""
    shown = Conditions(found.as_params())
    return [f"{one.label}: {one.value}" for one in shown.active_filters]


def _display_value(name: str, value: str) -> str | Promise:
    if name == "status" and value in RunStatus.values:
        return str(RunStatus(value).label)
    if name == "period" and value in PERIODS:
        return PERIODS[value]
    if name == "time" and value in TIMES:
        return _TIMES[value]
    if name in ("before", "parent", "event", "id"):
        return tail(value)
    return _local(value).replace("T", " ") if name in _MOMENTS else value


def _local(value: str) -> str:
    """Return a time in the format of a datetime input, or an invalid value as it is."""
    try:
        found = parse_datetime(value)
    except ValueError:
        found = None
    if found is None:
        return value
    if timezone.is_aware(found):
        try:
            found = timezone.localtime(found)
        except OverflowError:
            return value
    plain = found.replace(tzinfo=None)
    whole = not (plain.second or plain.microsecond)
    return plain.isoformat(timespec="minutes" if whole else "milliseconds")
