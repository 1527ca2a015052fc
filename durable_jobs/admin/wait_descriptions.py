"""What a run waits for, in words."""

from __future__ import annotations

from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from durable_jobs.admin.display import away, tail
from durable_jobs.admin.links import Links
from durable_jobs.models import Run, Wait, WaitKind

_WORDS: dict[str, Any] = {
    WaitKind.SLEEP: _("sleeps until"),
    WaitKind.RETRY: _("next attempt"),
    WaitKind.POLL: _("next check"),
    WaitKind.TIMEOUT: _("gives up"),
    WaitKind.EVENT: _("waits for the event"),
    WaitKind.SIGNAL: _("waits for the signal"),
    WaitKind.MODEL: _("waits for"),
    WaitKind.CHILD: _("waits for the run"),
    WaitKind.CALLBACK: _("waits for a callback"),
    WaitKind.APPROVAL: _("waits for an approval that needs"),
    WaitKind.CANCEL: _("would be cancelled by the event"),
    WaitKind.START_BY: _("has to start"),
    WaitKind.FINISH_BY: _("has to end"),
}
_HEARTBEAT = _("needs a heartbeat")


def describe(wait: Wait, links: Links) -> SafeString:
    """Return what a wait waits for, and until when."""
    words: Any = _WORDS.get(wait.kind, wait.kind)
    if wait.kind == WaitKind.TIMEOUT and wait.name:
        words = _HEARTBEAT
    text = format_html("{} {}", words, _what(wait, links))
    return format_html("{}: {}", wait.branch, text) if wait.branch else text


def decided(kind: str, detail: Any) -> str | None:
    """Return who decided an ``approve`` step; None for another, or an open one."""
    if kind != "approve" or not isinstance(detail, dict):
        return None
    name = detail.get("name") or gettext("somebody")
    if detail.get("decision") == "approved":
        return gettext("approved by %(name)s") % {"name": name}
    if detail.get("decision") == "rejected":
        return gettext("rejected by %(name)s") % {"name": name}
    return None


def _what(wait: Wait, links: Links) -> Any:
    if wait.kind == WaitKind.CHILD:
        return links.anchor(links.page(Run, wait.name), tail(wait.name))
    if wait.kind == WaitKind.APPROVAL:
        return links.anchor(links.approval(wait), wait.name)
    if wait.kind == WaitKind.MODEL:
        # Its time is that of the next look, which is the engine's own affair.
        return format_html("<strong>{} {}</strong>", wait.name, wait.match)
    if wait.due_at is not None:
        return away(wait.due_at)
    return format_html("<strong>{}</strong>", wait.name)
