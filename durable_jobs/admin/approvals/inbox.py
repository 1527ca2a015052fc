"""The approvals inbox, and the page of one approval with its form."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.forms import BaseForm
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from durable_jobs.admin.confirmation import INVALID_STATUS
from durable_jobs.admin.display import badge, moment, relative_time, short
from durable_jobs.admin.links import Links
from durable_jobs.admin.pages import actor_of, address, page
from durable_jobs.admin.payloads import payload, stored
from durable_jobs.admin.related import RUN_PAYLOADS, subjects
from durable_jobs.control import approval_decisions, inbox
from durable_jobs.control.approval_decisions import ApprovalStep, RejectForm
from durable_jobs.exceptions import ActionNotAllowed, InvalidForm, PayloadError
from durable_jobs.models import Run, Wait
from durable_jobs.project_code import contained
from durable_jobs.queries import approvals, visibility
from durable_jobs.store import db

#: Subjects on a page of approvals, for all runs together.
MOST_SUBJECTS = 200
_MAX_KEY = 2**63 - 1


# The inbox


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxRow:
    """An approval in the inbox."""

    title: str
    url: str | None
    run: SafeString
    about: list[SafeString]
    since: SafeString | None
    until: SafeString | None


def view(admin: Any, request: HttpRequest) -> HttpResponse:
    """Show the approvals that the viewer may decide, oldest first.

    Any admin user may open the page, which shows no other approvals.
    """
    after = _after(request)
    found = inbox.read(actor_of(request), after)
    return page(
        admin.admin_site,
        request,
        "approvals.html",
        title=_("Approvals"),
        current="approvals",
        rows=_rows(found.waits, Links(admin.admin_site, request)),
        after=found.after,
        begun=bool(after),
    )


def _after(request: HttpRequest) -> int:
    text = request.GET.get("after", "")
    known = text.isascii() and text.isdigit() and len(text) < 20
    return min(int(text), _MAX_KEY) if known else 0


def _rows(waits: Sequence[Wait], links: Links) -> list[InboxRow]:
    about = subjects([wait.run for wait in waits], links, MOST_SUBJECTS)
    ends = approvals.ends(waits)
    return [
        InboxRow(
            title=str((wait.condition or {}).get("title", "")),
            url=links.approval(wait),
            run=_run_link(wait.run, links),
            about=about.get(wait.run_id, []),
            since=relative_time(wait.created_at),
            until=relative_time(ends.get((wait.run_id, wait.step))),
        )
        for wait in waits
    ]


# One approval


def decide(admin: Any, request: HttpRequest, run_id: uuid.UUID, key: str) -> Any:
    """Show one approval with its form. On POST record the decision."""
    question = _find_question(run_id, key)
    if not actor_of(request).may(question.permission, question.run):
        raise PermissionDenied
    if question.wait is None:
        return _back(admin, request, messages.WARNING, question.verdict)
    invalid, failed = None, ""
    if request.method == "POST":
        try:
            done = _decide(request, question)
            if done is not None:
                return _back(admin, request, messages.SUCCESS, done)
        except ActionNotAllowed as error:
            return _back(admin, request, messages.WARNING, str(error))
        except InvalidForm as error:
            invalid = error.form
        except PayloadError as error:
            failed = error.message  # the form no longer exists, or its own code failed
    return _page(admin, request, question, invalid, failed)


def _find_question(run_id: uuid.UUID, key: str) -> ApprovalStep:
    runs = visibility.runs().defer(*RUN_PAYLOADS)
    run = runs.filter(pk=run_id).first()
    question = None if run is None else approval_decisions.find_step(run, key)
    if question is None:
        raise Http404
    return question


def _decide(request: HttpRequest, question: ApprovalStep) -> str | None:
    """Record the decision of the pressed button and return a message, if any."""
    actor, run, key = actor_of(request), question.run, question.step.key
    if "_reject" in request.POST:
        approval_decisions.reject(actor, run, key, request.POST.get("reason", ""))
        return _("“%(title)s” was rejected.") % {"title": question.title}
    if "_approve" not in request.POST:
        return None
    approval_decisions.approve(actor, run, key, request.POST)
    return _("“%(title)s” was approved.") % {"title": question.title}


def _back(admin: Any, request: HttpRequest, level: int, text: str) -> HttpResponse:
    messages.add_message(request, level, text)
    return HttpResponseRedirect(address(admin.admin_site, "approvals"))


def _page(
    admin: Any,
    request: HttpRequest,
    question: ApprovalStep,
    invalid: BaseForm | None,
    failed: str,
) -> HttpResponse:
    """Return the page, without the form if the form's own code fails."""
    form = None if isinstance(invalid, RejectForm) else invalid
    try:
        form_class = question.form
        if form is None and form_class is not None and not failed:
            form = _unbound(form_class)
    except PayloadError as error:
        failed = error.message
    if form is None:
        return _response(admin, request, question, None, invalid, failed)
    try:
        with contained():
            return _response(admin, request, question, form, invalid, failed).render()
    except Exception as error:  # noqa: BLE001  # form_failed logs it
        failed = approval_decisions.form_failed(type(form), error).message
        return _response(admin, request, question, None, invalid, failed)


def _unbound(form_class: type[BaseForm]) -> BaseForm:
    try:
        with contained():
            return form_class()
    except Exception as error:
        raise approval_decisions.form_failed(form_class, error) from error


def _response(
    admin: Any,
    request: HttpRequest,
    question: ApprovalStep,
    form: BaseForm | None,
    invalid: BaseForm | None,
    form_error: str,
) -> TemplateResponse:
    rejecting = invalid if isinstance(invalid, RejectForm) else RejectForm()
    rejecting.auto_id = "id_reject_%s"  # avoids a duplicate id with the other form
    for one in (form, rejecting):
        if one is not None:
            one.label_suffix = ""
    links = Links(admin.admin_site, request)
    return page(
        admin.admin_site,
        request,
        "approval.html",
        title=question.title,
        current="approvals",
        neighbours=_facts(question, links),
        data=_data(admin, request, question.run),
        form=form,
        form_error=form_error,
        rejecting=rejecting,
        media=admin.media if form is None else admin.media + form.media,
        inbox=address(admin.admin_site, "approvals"),
        status=INVALID_STATUS if request.method == "POST" else 200,
    )


def _facts(question: ApprovalStep, links: Links) -> list[tuple[Any, list[Any]]]:
    run, wait = question.run, question.wait
    until = question.step.due_at
    groups = (
        (_("run"), [format_html("{} {}", _run_link(run, links), badge(run))]),
        (_("about"), subjects([run], links, MOST_SUBJECTS).get(run.pk, [])),
        (_("step"), [question.step.name]),
        (_("waiting since"), [moment(wait.created_at)] if wait else []),
        (_("times out"), [relative_time(until)] if until else []),
        (_("needs"), [question.permission]),
    )
    return [(label, found) for label, found in groups if found]


def _data(admin: Any, request: HttpRequest, run: Run) -> SafeString | None:
    """Return the run's data, or None without permission."""
    show_payloads = admin.has_view_permission(request, run) and admin.may_view_payloads(
        request, run
    )
    if not show_payloads:
        return None
    rows = db.rows(Run).filter(pk=run.pk)
    text = rows.values_list(stored("data"), flat=True).first()
    return payload(text, _("Data of the run"))


def _run_link(run: Run, links: Links) -> SafeString:
    label = format_html("{} {}", run.function, short(run.pk))
    return links.anchor(links.page(Run, run.pk), label)
