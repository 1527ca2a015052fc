"""Filters of runs, for pages, exports, bulk actions and the API.

Indexed conditions narrow the table first. Conditions without an index search only the
newest ``MAX_SEARCHED`` of the remaining runs, so that no list reads the whole history.
"""

from __future__ import annotations

import difflib
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from durable_jobs import clock
from durable_jobs.exceptions import FilterError
from durable_jobs.models import Subject
from durable_jobs.queries import json_paths
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db

#: Runs that conditions without an index search.
MAX_SEARCHED = 20_000
#: The maximum difference between the clocks of hosts that create ids.
APART = timedelta(hours=1)
TIMES = ("queued", "started", "ended")
PERIODS = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(days=7),
    "month": timedelta(days=30),
}
_LONGEST = 1000
#: The years that ids and databases support.
_YEARS = range(1971, 9999)

Rows = QuerySet[Any]


@dataclass(frozen=True)
class RunFilter:
    """Conditions by name, each with its values as in a query string.

    ``status``, ``id`` and ``where`` may have several values. A run matches one of the
    statuses, one of the ids, and all conditions of ``where``. Such a condition is
    ``data.path.to.key=value``, or the same with ``output`` or ``error``. The value is
    JSON, or otherwise a string.
    """

    values: Mapping[str, tuple[str, ...]]

    @classmethod
    def parse(cls, params: Mapping[str, str | Iterable[str]]) -> RunFilter:
        """Parse conditions; raise ``FilterError`` for the first invalid condition."""
        values: dict[str, tuple[str, ...]] = {}
        for name, given in params.items():
            try:
                found = _read(name, given)
            except FilterError as error:
                error.name = name
                raise
            if found:
                values[name] = found
        return cls(values)

    def as_params(self) -> dict[str, list[str]]:
        """Return the conditions in a form for ``parse`` and for JSON."""
        return {name: list(values) for name, values in self.values.items()}

    def __str__(self) -> str:
        """Return a description of the conditions."""
        return "; ".join(
            f"{name} {' or '.join(values)}"
            if len(values) < 5
            else f"{len(values)} {name}s"
            for name, values in self.values.items()
        )

    def __bool__(self) -> bool:
        return bool(self.values)

    def without(self, name: str) -> RunFilter:
        """Return the filter without a condition."""
        return RunFilter({key: self.values[key] for key in self.values if key != name})

    @property
    def reads_payloads(self) -> bool:
        """Return whether only users who may see payloads may use the filter."""
        return "where" in self.values

    @property
    def unindexed(self) -> list[str]:
        """Return the names of the conditions without an index."""
        names = [name for name in self.values if name in UNINDEXED]
        if self._time == "started" and {"since", "until", "period"} & {*self.values}:
            names.append("time")
        return names

    def split_by_status(self) -> list[RunFilter]:
        """Return one filter per status, which together match the same runs.

        Each can use the index of its status. A filter with conditions without an index
        is not split, because these search the newest runs of all statuses.
        """
        statuses = sorted(set(self.values.get("status", ())))
        if len(statuses) < 2 or self.unindexed:
            return [self]
        return [RunFilter({**self.values, "status": (one,)}) for one in statuses]

    def frozen(self) -> RunFilter:
        """Return the filter with a fixed time instead of a period that ends now."""
        if "period" not in self.values:
            return self
        since, _until = self._range()
        assert since is not None
        kept = {name: self.values[name] for name in self.values if name != "period"}
        return RunFilter({**kept, "since": (since.isoformat(),)})

    def narrow(self, rows: Rows, search_start: uuid.UUID | None = None) -> Rows:
        """Return the runs that match all conditions, in the order of ``rows``.

        With ``search_start``, conditions without an index search runs with larger ids
        instead of the newest runs.
        """
        found = self._indexed(rows)
        if not self.unindexed:
            return found
        first = search_start or self.search_start(rows)
        if first is not None:
            found = found.filter(pk__gt=first)
        for name, condition in UNINDEXED.items():
            if name in self.values:
                found = found.filter(condition(self.values[name]))
        for number, text in enumerate(self.values.get("where", ())):
            found = _where(found, text, number)
        return self._started(found)

    def search_start(self, rows: Rows) -> uuid.UUID | None:
        """Return the ``search_start`` with which ``narrow`` searches the same runs."""
        if not self.unindexed or rows.query.is_empty():
            return None
        keys = self._indexed(rows).order_by("-pk").values_list("pk", flat=True)
        first: uuid.UUID | None = keys[MAX_SEARCHED : MAX_SEARCHED + 1].first()
        return first

    def _indexed(self, rows: Rows) -> Rows:
        for name, condition in INDEXED.items():
            if name in self.values:
                rows = rows.filter(condition(self.values[name]))
        return self._in_time(rows)

    @property
    def _time(self) -> str:
        return self.values.get("time", ("queued",))[0]

    def _range(self) -> tuple[datetime | None, datetime | None]:
        since, until = (
            _moment(name, self.values[name][0]) if name in self.values else None
            for name in ("since", "until")
        )
        if "period" in self.values:
            begins = clock.now() - PERIODS[self.values["period"][0]]
            since = begins if since is None else max(since, begins)
        return since, until

    def _in_time(self, rows: Rows) -> Rows:
        since, until = self._range()
        if until is not None:  # a run is queued before it starts and ends
            rows = rows.filter(pk__lt=earliest_id(until + APART))
        if self._time == "ended":
            return _between(rows, "ended_at", since, until)
        if self._time == "queued":
            if since is not None:
                rows = rows.filter(pk__gte=earliest_id(since - APART))
            return _between(rows, "queued_at", since, until)
        return rows

    def _started(self, rows: Rows) -> Rows:
        if self._time != "started":
            return rows
        return _between(rows, "started_at", *self._range())


def _between(
    rows: Rows, column: str, since: datetime | None, until: datetime | None
) -> Rows:
    if since is not None:
        rows = rows.filter(**{f"{column}__gte": since})
    if until is not None:
        rows = rows.filter(**{f"{column}__lt": until})
    return rows


def earliest_id(moment: datetime) -> uuid.UUID:
    """Return an id that is smaller than all ids created from a time on."""
    return uuid.UUID(int=max(int(moment.timestamp() * 1000), 0) << 80)


def identity(value: str, name: str = "id") -> uuid.UUID:
    """Parse the id of a run; raise ``FilterError``."""
    try:
        return uuid.UUID(value)
    except ValueError:
        msg = f"Expected the id of a run as {name!r}, got {value!r:.80}."
        raise FilterError(msg) from None


# Conditions


def _status(values: tuple[str, ...]) -> Q:
    if unknown := [value for value in values if value not in RunStatus.values]:
        msg = f"Expected a status among {', '.join(RunStatus.values)}, got {unknown}."
        raise FilterError(msg)
    found = Q()
    for value in sorted(set(values)):
        found |= _of_status(value)
    return found


def _of_status(value: str) -> Q:
    """Return the condition of a status in the form of the index on it."""
    of = Q(status=value)
    if value == RunStatus.QUEUED:  # two partial indexes
        return (of & Q(backlog__isnull=True)) | (of & Q(backlog__isnull=False))
    if value == RunStatus.RUNNING:
        return of & Q(lease_token__isnull=False)
    return of


def _subject(values: tuple[str, ...]) -> Q:
    label, _colon, key = values[0].partition(":")
    if "." not in label or not key:
        msg = f"Expected app.model:key as 'subject', got {values[0]!r:.80}."
        raise FilterError(msg)
    rows = db.rows(Subject)
    return Q(pk__in=rows.filter(model=label.lower(), object_pk=key).values("run_id"))


def _search(values: tuple[str, ...]) -> Q:
    """Return the condition that the run id, event id or key equals a value."""
    term = values[0].strip()
    found = Q(event_id=term) | Q(key=term)
    with suppress(FilterError):  # an event id or a key
        found |= Q(pk=identity(term))
    return found


def _equal(column: str) -> Callable[[tuple[str, ...]], Q]:
    return lambda values: Q(**{column: values[0]})


def _ids(values: tuple[str, ...]) -> Q:
    return Q(pk__in=[identity(value) for value in values])


def _id(column: str, name: str) -> Callable[[tuple[str, ...]], Q]:
    return lambda values: Q(**{column: identity(values[0], name)})


def _where(rows: Rows, text: str, number: int) -> Rows:
    column, keys, wanted = json_paths.path(text)
    name = f"where_{number}"
    placed = rows.alias(**{name: json_paths.expression(column, keys)})
    found: Rows = placed.filter(**{name: wanted})
    return found


def _moment(name: str, value: str) -> datetime:
    try:
        found = parse_datetime(value)
    except ValueError:
        found = None
    if found is None or found.year not in _YEARS:
        msg = (
            f"Expected a date and time as {name!r}, such as 2030-01-31T12:00, got "
            f"{value!r:.80}."
        )
        raise FilterError(msg)
    aware = timezone.make_aware(found) if timezone.is_naive(found) else found
    return aware.astimezone(UTC)  # PostgreSQL rejects offsets of 16 hours or more


def _read(name: str, given: Any) -> tuple[str, ...]:
    if name not in NAMES:
        raise FilterError(_unknown(name))
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes)
    found = tuple(map(str, given if several else [given]))
    if len(found) > (most := SEVERAL.get(name, 1)):
        msg = f"Expected at most {most} of the filter {name!r}, got {len(found)}."
        raise FilterError(msg)
    for value in found:
        if not value or len(value) > _LONGEST or not storable(value):
            msg = f"Expected 1 to {_LONGEST} characters as the filter {name!r}."
            raise FilterError(msg)
        CHECKS.get(name, INDEXED.get(name, _anything))((value,))
    return found


def storable(value: str) -> bool:
    """Return whether a database can store a string: no NUL, no lone surrogate."""
    return "\x00" not in value and value.encode(errors="replace").decode() == value


def _anything(values: tuple[str, ...]) -> None:
    """Accept every string."""


def _among(name: str, choices: Iterable[str]) -> Callable[[tuple[str, ...]], None]:
    def check(values: tuple[str, ...]) -> None:
        if values[0] not in choices:
            msg = f"Expected one of {', '.join(choices)} as {name!r}."
            raise FilterError(msg)

    return check


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name[:80], NAMES, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Unknown filter {name!r:.80}.{hint}"


INDEXED: dict[str, Callable[[tuple[str, ...]], Q]] = {
    "q": _search,
    "status": _status,
    "function": _equal("function"),
    "subject": _subject,
    "key": _equal("key"),
    "event": _equal("event_id"),
    "parent": _id("parent_id", "parent"),
    "id": _ids,
    "before": _id("pk__lt", "before"),
}
UNINDEXED: dict[str, Callable[[tuple[str, ...]], Q]] = {
    "trigger": _equal("trigger"),
    "version": _equal("version"),
    "queue": _equal("queue"),
    "worker": _equal("worker"),
    "where": lambda values: Q(),
}
#: Validators of conditions that do not raise for invalid values themselves.
CHECKS: dict[str, Callable[[tuple[str, ...]], object]] = {
    "time": _among("time", TIMES),
    "period": _among("period", PERIODS),
    "since": lambda values: _moment("since", values[0]),
    "until": lambda values: _moment("until", values[0]),
    "where": lambda values: json_paths.path(values[0]),
}
#: The names of all conditions.
NAMES = (*INDEXED, *UNINDEXED, "time", "period", "since", "until")
#: The maximum number of values of conditions with several values.
SEVERAL = {"status": len(RunStatus), "where": 10, "id": 1000}
