"""The page of one event, and the pages that send events."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from django import forms
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from durable_jobs.admin.base import ReadOnlyAdmin
from durable_jobs.admin.confirmation import (
    INVALID_STATUS,
    Confirmation,
    IdempotentForm,
    confirm,
    submit,
)
from durable_jobs.admin.display import badge, moment, short
from durable_jobs.admin.events.snippets import snippets
from durable_jobs.admin.links import Links
from durable_jobs.admin.pages import View, actor_of, address, page, paths
from durable_jobs.admin.payloads import MAX_PAYLOAD_LENGTH
from durable_jobs.admin.related import newest, run_table
from durable_jobs.admin.typed_json import PayloadText, typed_by
from durable_jobs.control import send
from durable_jobs.control.send import Sent
from durable_jobs.definitions.events import NewEvent
from durable_jobs.definitions.names import MAX_LENGTH, RESERVED, WEBHOOK
from durable_jobs.definitions.registry import registry
from durable_jobs.definitions.triggers import Event as EventTrigger
from durable_jobs.models import Event, Run, Step
from durable_jobs.queries import events, visibility
from durable_jobs.queries.events import MOST
from durable_jobs.store import db


class EventPages(ReadOnlyAdmin):
    """Add the effects of an event, and pages that send events."""

    def get_urls(self) -> list[Any]:
        views: dict[str, tuple[str, View]] = {
            "event_send": ("send/", _send),
            "event_resend": ("<str:key>/resend/", _resend),
        }
        return [*paths(self, views), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        context = {"send_url": self.send_url(request), **(extra_context or {})}
        return super().changelist_view(request, context)

    def send_url(self, request: HttpRequest, **known: Any) -> str | None:
        """Return the URL of the page that sends events, or None without permission."""
        if not actor_of(request).may(send.SEND):
            return None
        found = address(self.admin_site, "event_send")
        return f"{found}?{urlencode(known)}" if known else found

    def sections(self, row: Any, links: Links) -> dict[str, Any]:
        """Return the runs that the event affected, and code snippets."""
        request = links.request
        reserved = row.name.startswith(RESERVED)
        posted = row.name.startswith(WEBHOOK)
        edit = None if reserved else self.send_url(request, event=row.pk)
        resend_url = address(self.admin_site, "event_resend", quote(row.pk))
        more = links.rows(Run, event=row.pk)
        steps = events.woken(row.pk)
        show_payloads = self.may_view_payloads(request, row) and not reserved
        return {
            "title": row.name,
            "subtitle": None,
            "run_short": short(row.pk),
            "runs": run_table(
                newest(visibility.runs().filter(event_id=row.pk)), links, more
            ),
            "woken": [_woken(step, links) for step in steps[:MOST]],
            "woken_more": len(steps) > MOST,
            "cancelled": run_table(events.cancelled(row), links, None),
            "looked_through": events.MAX_SEARCHED,
            "snippets": snippets(request, row.name, row.data_text)
            if show_payloads
            else [],
            "edit_url": edit,
            "resend_url": resend_url
            if edit or (posted and self.send_url(request))
            else None,
        }


def _woken(step: Step, links: Links) -> dict[str, Any]:
    return {
        "run": links.anchor(links.page(Run, step.run_id), short(step.run_id)),
        "function": step.run.function,
        "step": links.anchor(links.page(Step, step.pk), step.name),
        "status": badge(step.run),
        "woken": moment(step.ended_at),
    }


# Sending


class SendForm(IdempotentForm):
    """The name and JSON data of a new event."""

    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=MAX_LENGTH,
        widget=forms.TextInput(
            attrs={"class": "vTextField", "list": "durable-event-names"}
        ),
    )
    input = PayloadText(
        label=gettext_lazy("Data"),
        required=False,
        help_text=gettext_lazy("A JSON object. Empty is {}."),
    )


class NameForm(IdempotentForm):
    """The name of a new event whose data has a form of its own."""

    name = forms.CharField(max_length=MAX_LENGTH, widget=forms.HiddenInput)


def _send(admin: Any, request: HttpRequest) -> HttpResponse:
    """Show the form. On POST send the event and show it."""
    if not admin.has_view_permission(request) or not actor_of(request).may(send.SEND):
        raise PermissionDenied
    source_event = _event_to_edit(admin, request)
    name = request.GET.get("name", "") or (source_event.name if source_event else "")
    schema = schema_of(name) if "as" not in request.GET else None
    forms_ = _forms(admin, request, name, schema, source_event)
    valid = [
        form.is_valid() for form in forms_
    ]  # validate all, so that all show their errors
    if all(valid):
        perform = partial(_do_send, admin, request, schema, forms_)
        done = submit(
            request, forms_[0], perform, address(admin.admin_site, "event_send")
        )
        if done is not None:
            return done
    return page(
        admin.admin_site,
        request,
        "event_send.html",
        title=_("Send an event"),
        current=admin.tab,
        status=INVALID_STATUS if forms_[0].is_bound else 200,
        list_url=Links(admin.admin_site, request).rows(Event),
        forms=forms_,
        name=name,
        fields=schema is not None,
        names=_names(),
        other=_other_form_url(admin, request, name, schema, source_event),
        hidden=source_event is not None
        and not admin.may_view_payloads(request, source_event),
    )


def _event_to_edit(admin: Any, request: HttpRequest) -> Any:
    """Return the event that the form is filled from, if any."""
    key = request.GET.get("event")
    return None if key is None else admin.get_object(request, key)


def _forms(
    admin: Any, request: HttpRequest, name: str, schema: Any, source_event: Any
) -> list[forms.Form]:
    posted, site = request.POST if request.method == "POST" else None, admin.admin_site
    text = "{}"
    if source_event is not None and admin.may_view_payloads(request, source_event):
        text = source_event.data_text or text
    if schema is None:
        known = {"name": name, "input": _indented(text)}
        return [typed_by(SendForm(posted, initial=known), Links(site, request))]
    from durable_jobs.admin.forms import form_for

    named = NameForm(posted, initial={"name": name})
    kind = form_for(schema)
    shown: dict[str, Any] = {"prefix": "data", "label_suffix": ""}
    if posted is not None:
        return [named, kind(posted, **shown)]
    return [named, kind.filled(json.loads(text) if _whole(text) else {}, **shown)]


def _do_send(
    admin: Any, request: HttpRequest, schema: Any, forms_: list[Any], first: Any
) -> tuple[Any, str]:
    from durable_jobs.admin.forms import read

    data = read(forms_[1]) if schema is not None else first.cleaned_data["input"]
    event = NewEvent(first.cleaned_data["name"], data, id=first.cleaned_data["token"])
    return _sent_message(admin, request, send.send_once(actor_of(request), event))


def _sent_message(admin: Any, request: HttpRequest, sent: Sent) -> tuple[Any, str]:
    links, rows = Links(admin.admin_site, request), db.rows(Event)
    # The viewer may see the event only if it started a visible run.
    visible = visibility.events(rows.filter(pk=sent.event.pk)).exists()
    url = (links.page(Event, sent.event.pk) if visible else links.rows(Event)) or ""
    if sent.new:
        return _("The event was sent."), url
    return _(
        "This form was sent before. No new event was sent. This is its event:"
    ), url


def _resend(admin: Any, request: HttpRequest, key: str) -> HttpResponse:
    """Confirm that an event is to be sent again. On POST send it and show it."""
    event = admin.get_object(request, unquote(key))
    if not admin.has_view_permission(request, event):
        raise PermissionDenied
    if not actor_of(request).may(send.SEND):
        raise PermissionDenied
    back = Links(admin.admin_site, request).page(Event, event.pk) or ""

    def perform(form: Any) -> tuple[Any, str]:
        token = form.cleaned_data["token"]
        return _sent_message(
            admin, request, send.resend(actor_of(request), event, token)
        )

    confirmation = Confirmation(
        title=_("Send again: %(name)s") % {"name": event.name},
        action_label=_("Send again"),
        text=_(
            "Sends a new event with the same name and data. The event starts and "
            "wakes the runs that listen to it."
        ),
        form=IdempotentForm,
        back=back,
        back_label=event,
        current=admin.tab,
        perform=perform,
    )
    return confirm(admin.admin_site, request, confirmation)


def schema_of(name: str) -> Any:
    """Return the schema of an event's data, or None without one."""
    schemas = [t.schema for _function, t in registry.listeners(name) if t.schema]
    return schemas[0] if schemas else None


def _names() -> list[str]:
    """Return the event names that functions listen to."""
    triggers = [t for f in registry for t in f.triggers if isinstance(t, EventTrigger)]
    names = {t.name for t in triggers if not t.name.endswith("*")}
    return sorted(name for name in names if not name.startswith(RESERVED))


def _other_form_url(
    admin: Any, request: HttpRequest, name: str, schema: Any, source_event: Any
) -> str | None:
    """Return the URL of the same form with fields, or with JSON."""
    known = {"name": name} | (
        {"event": source_event.pk} if source_event is not None else {}
    )
    if schema is not None:
        found: str | None = admin.send_url(request, **known, **{"as": "json"})
        return found
    visible = name and schema_of(name) is not None
    return admin.send_url(request, **known) if visible else None


def _whole(text: str) -> bool:
    return len(text) <= MAX_PAYLOAD_LENGTH


def _indented(text: str) -> str:
    """Return indented JSON for editing, or "" if it is too long."""
    if not _whole(text):
        return ""
    return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
