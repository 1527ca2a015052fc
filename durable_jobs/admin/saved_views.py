"""Saved views: named filters of the run list, private or shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    QueryDict,
)
from django.utils.translation import gettext as _

from durable_jobs import clock
from durable_jobs.admin.pages import address
from durable_jobs.admin.runs import filter_form
from durable_jobs.exceptions import FilterError
from durable_jobs.models import SavedView
from durable_jobs.queries import visibility
from durable_jobs.queries.run_filter import RunFilter
from durable_jobs.store import db

PAGE = "run"
#: Saved views per user, and shared views in a list.
MOST = 50
MAX_NAME_LENGTH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedViewLink:
    """A saved view as a link."""

    pk: int
    name: str
    url: str
    current: bool
    is_owner: bool
    shared: bool


def links(request: HttpRequest, found: filter_form.Conditions) -> list[SavedViewLink]:
    """Return the user's own and shared views."""
    owner, current = _owner(request), found.query()
    seen = Q(owner=owner)
    if not visibility.is_narrowed():  # a shared filter may reveal hidden subjects
        seen |= Q(shared=True)
    rows = _rows().filter(seen).order_by("name", "pk")
    return [
        SavedViewLink(
            pk=row.pk,
            name=row.name,
            url=f"?{row.query}",
            current=row.query == current,
            is_owner=row.owner == owner,
            shared=row.shared,
        )
        for row in rows[: 2 * MOST]
    ]


def view(run_admin: Any, request: HttpRequest) -> HttpResponse:
    """Save the posted filter under a name, or delete one of the user's views."""
    if not run_admin.has_view_permission(request):
        raise PermissionDenied
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    result = _delete(request) if "delete" in request.POST else _save(request)
    level, text, query = result
    messages.add_message(request, level, text)
    back = address(run_admin.admin_site, "run_changelist")
    return HttpResponseRedirect(f"{back}?{query}" if query else back)


def _save(request: HttpRequest) -> tuple[int, str, str]:
    name = request.POST.get("name", "").strip()
    query = request.POST.get("query", "")
    try:
        found = RunFilter.parse(dict(QueryDict(query).lists())).as_params()
    except FilterError as error:
        return messages.ERROR, error.message, ""
    query = filter_form.Conditions(found).query()
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        text = _("Expected a name of 1 to %(most)s characters for the view.")
        return messages.ERROR, text % {"most": MAX_NAME_LENGTH}, query
    owned = _rows().filter(owner=_owner(request))
    if owned.exclude(name=name).count() >= MOST:
        text = _("You have the maximum of %(most)s saved views. Delete one first.")
        return messages.ERROR, text % {"most": MOST}, query
    values = {"query": query, "shared": "shared" in request.POST}
    view = SavedView(
        owner=_owner(request), page=PAGE, name=name, created_at=clock.now(), **values
    )
    if not owned.filter(name=name).update(**values):
        owned.bulk_create(
            [view], ignore_conflicts=True
        )  # a concurrent request may save the same name
    return messages.SUCCESS, _("The view “%(name)s” was saved.") % {"name": name}, query


def _delete(request: HttpRequest) -> tuple[int, str, str]:
    key, query = request.POST["delete"], ""
    owned = _rows().filter(owner=_owner(request))
    row = (
        owned.filter(pk=key).first()
        if key.isascii() and key.isdigit() and len(key) < 19
        else None
    )
    if row is None:
        return messages.WARNING, _("This saved view no longer exists."), query
    owned.filter(pk=row.pk)._raw_delete(db.alias())
    text = _("The view “%(name)s” was deleted.") % {"name": row.name}
    return messages.SUCCESS, text, query


def _owner(request: HttpRequest) -> str:
    return str(request.user.pk)


def _rows() -> Any:
    return db.rows(SavedView).filter(page=PAGE)
