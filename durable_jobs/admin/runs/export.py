"""Export the runs of a filter as CSV or JSON, streamed in chunks."""

from __future__ import annotations

import csv
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from types import NoneType
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIRequest
from django.db.models import Case, F, IntegerField, TextField, When
from django.db.models.functions import Cast
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from durable_jobs.admin.pages import actor_of
from durable_jobs.admin.runs import filter_form
from durable_jobs.exceptions import FilterError
from durable_jobs.queries.run_filter import RunFilter

#: The most runs in one file.
MOST = 100_000
#: The response header that says that runs were left out.
CAPPED = "Durable-Jobs-Capped"
#: Rows in memory at once. Payloads may be large.
CHUNK, CHUNK_OF_PAYLOADS = 1000, 50
COLUMNS: tuple[str, ...] = (
    "id",
    "function",
    "status",
    "reason",
    "trigger",
    "key",
    "version",
    "queue",
    "worker",
    "attempt",
    "crash_count",
    "event_id",
    "parent_id",
    "parent_relation",
    "queued_at",
    "due_at",
    "started_at",
    "ended_at",
)
PAYLOADS: tuple[str, ...] = ("data", "output", "error")
#: First characters of cells that a spreadsheet evaluates.
_FORMULAS = (*"=+-@", *"\uff1d\uff0b\uff0d\uff20", "\t", "\r", "\n")

#: The SQL form of ``Run.worker_losses``.
_LOSSES = Case(
    When(lease_token__isnull=False, crash_count__gt=0, then=F("crash_count") - 1),
    default=F("crash_count"),
    output_field=IntegerField(),
)
_ANNOTATIONS = {"crash_count": "crash_count_text"}

Row = dict[str, Any]


def view(run_admin: Any, request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """Send the runs that match the filters in the URL, newest first."""
    if not run_admin.has_view_permission(request):
        raise PermissionDenied
    form = request.GET.get("format", "")
    parameters = {
        name: found
        for name, found in filter_form.params(request).items()
        if name != "format"
    }
    try:
        chosen = filter_form.allowed(request, RunFilter.parse(parameters)).frozen()
        write, kind = FORMATS[form]
    except FilterError as error:
        return HttpResponse(error.message, status=400, content_type="text/plain")
    except KeyError:
        text = f"Expected one of {', '.join(FORMATS)} as 'format'."
        return HttpResponse(text, status=400, content_type="text/plain")
    payloads = actor_of(request).may("durable_jobs.view_payload")
    rows = _RunRows(run_admin, request, chosen, payloads)
    capped = rows.more_than(MOST)
    body = write(iter(rows), [*COLUMNS, *(PAYLOADS if payloads else ())])
    response = StreamingHttpResponse(
        _asynchronous(body) if isinstance(request, ASGIRequest) else body,
        content_type=kind,
    )
    name = f"runs-first-{MOST}" if capped else "runs"
    response["Content-Disposition"] = f'attachment; filename="{name}.{form}"'
    response["X-Content-Type-Options"] = "nosniff"
    if capped:
        response[CAPPED] = str(MOST)
    return response


class _RunRows:
    """Iterate over the runs of a filter, in chunks by id."""

    def __init__(
        self, run_admin: Any, request: HttpRequest, chosen: RunFilter, payloads: bool
    ) -> None:
        rows = run_admin.get_queryset(request)
        self._names = [_ANNOTATIONS.get(name, name) for name in COLUMNS]
        self._rows = (
            chosen.narrow(rows).order_by("-pk").annotate(crash_count_text=_LOSSES)
        )
        self._size = CHUNK
        if payloads:
            texts = {f"{name}_text": Cast(name, TextField()) for name in PAYLOADS}
            self._names += texts
            self._rows = self._rows.annotate(**texts)
            self._size = CHUNK_OF_PAYLOADS

    def more_than(self, count: int) -> bool:
        """Return whether more than ``count`` runs match."""
        return bool(self._rows.values("pk")[count : count + 1])

    def __iter__(self) -> Iterator[Row]:
        rows, left = self._rows, MOST
        while left:
            size = min(self._size, left)
            found = list(rows.values(*self._names)[:size])
            for row in found:
                yield {name.removesuffix("_text"): row[name] for name in self._names}
            if len(found) < size:
                return
            left -= size
            rows = self._rows.filter(pk__lt=found[-1]["id"])


class _EchoFile:
    """A file whose ``write`` returns the text."""

    def write(self, text: str) -> str:
        """Return the text unchanged."""
        return text


def as_csv(rows: Iterable[Row], names: list[str]) -> Iterator[str]:
    """Yield the lines of a CSV file. Quote cells that spreadsheets would evaluate."""
    writer = csv.writer(_EchoFile())
    yield writer.writerow(names)  # returns what the file's write returns
    for row in rows:
        yield writer.writerow([_cell(row[name]) for name in names])


def _cell(value: Any) -> str:
    text = "" if value is None else _plain(value)
    return f"'{text}" if text.startswith(_FORMULAS) else text


def as_json(rows: Iterable[Row], names: list[str]) -> Iterator[str]:
    """Yield the pieces of a JSON list with one object per run."""
    begin = "[\n"
    for row in rows:
        values = {
            name: value if isinstance(value, int | NoneType) else _plain(value)
            for name, value in row.items()
            if name not in PAYLOADS
        }
        text = json.dumps(values, ensure_ascii=False)
        for name in PAYLOADS:  # as stored, so that large numbers stay exact
            if name in row:
                text = f"{text[:-1]}, {json.dumps(name)}: {row[name] or 'null'}}}"
        yield begin + text
        begin = ",\n"
    yield "[]\n" if begin == "[\n" else "\n]\n"


def _plain(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


async def _asynchronous(pieces: Iterator[str]) -> AsyncIterator[str]:
    """Yield the pieces to an ASGI server. A thread produces each piece."""
    following = sync_to_async(lambda: next(pieces, None))
    while (piece := await following()) is not None:
        yield piece


Writer = Callable[[Iterable[Row], list[str]], Iterator[str]]
FORMATS: dict[str, tuple[Writer, str]] = {
    "csv": (as_csv, "text/csv; charset=utf-8"),
    "json": (as_json, "application/json"),
}
