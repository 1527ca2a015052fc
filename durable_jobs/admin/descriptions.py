"""Describe what a function declares and what a run waits for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from durable_jobs.admin.display import length, relative_time, tail
from durable_jobs.admin.links import Links
from durable_jobs.definitions.flow_control import (
    Concurrency,
    FlowControl,
    RateLimit,
    Throttle,
)
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.triggers import Cron, Event, ModelChange
from durable_jobs.definitions.webhooks import Webhook
from durable_jobs.durations import parse_duration
from durable_jobs.expressions import Expression
from durable_jobs.models import Run, Wait, WaitKind

Fact = tuple[Any, str]


def triggers(function: Function) -> list[str]:
    """Return descriptions of a function's triggers."""
    return [_trigger(trigger) for trigger in function.triggers]


def _trigger(trigger: Any) -> str:
    if isinstance(trigger, Event):
        text = _("event %(name)s") % {"name": trigger.name}
        if trigger.if_ is not None:
            text = _("%(event)s if %(condition)s") % {
                "event": text, "condition": source_of(trigger.if_)
            }  # fmt: skip
        return text
    if isinstance(trigger, Cron):
        return trigger.expression.describe()
    if isinstance(trigger, ModelChange):
        return _change(trigger)
    assert isinstance(trigger, Webhook)
    return _("webhook %(path)s") % {"path": trigger.path}


def _change(trigger: ModelChange) -> str:
    kinds = {
        _("created"): trigger.created,
        _("updated"): trigger.updated,
        _("deleted"): trigger.deleted,
    }
    text = _("%(model)s is %(kinds)s") % {
        "model": trigger.model,
        "kinds": _(" or ").join(str(kind) for kind, on in kinds.items() if on),
    }
    if trigger.fields is not None:
        text += f" ({', '.join(trigger.fields)})"
    if trigger.when is not None:
        text = _("%(event)s if %(condition)s") % {
            "event": text, "condition": source_of(trigger.when)
        }  # fmt: skip
    return text


def limits(function: Function) -> list[str]:
    """Return descriptions of a function's flow control."""
    return list(_limits(function.flow_control))


def _limits(controls: FlowControl) -> Iterator[str]:
    for rule in controls.concurrency:
        yield _keyed(describe_rule(rule), rule.key)
    for limit in (controls.throttle, controls.rate_limit):
        if limit is not None:
            yield _keyed(describe_rule(limit), limit.key)
    if controls.debounce is not None:
        period = _length(controls.debounce.period)
        text = _("after %(length)s without an event") % {"length": period}
        yield _keyed(text, controls.debounce.key)
    if controls.batch is not None:
        text = _("up to %(size)s events per run, within %(length)s") % {
            "size": controls.batch.max_size,
            "length": _length(controls.batch.timeout),
        }
        yield _keyed(text, controls.batch.key)
    if controls.singleton is not None:
        yield _keyed(_SINGLETON[controls.singleton.mode], controls.singleton.key)
    if controls.ordering is not None:
        yield _keyed(_("first in, first out"), controls.ordering)


_SINGLETON = {
    "skip": gettext_lazy("one live run, others are skipped"),
    "cancel": gettext_lazy("one live run, a new one cancels it"),
    "queue": gettext_lazy("one live run, others wait"),
}


def describe_rule(rule: Concurrency | Throttle | RateLimit, limit: Any = None) -> str:
    """Describe a rule, with an operator's ``limit`` in place of the declared one."""
    known = declared_limit(rule.limit) if limit is None else str(limit)
    if isinstance(rule, Concurrency):
        of = _("%(limit)s live at a time") if rule.of == "runs" else None
        return (of or _("%(limit)s at a time")) % {"limit": known}
    values = {"limit": known, "length": _length(rule.per)}
    if isinstance(rule, RateLimit):
        return _("%(limit)s starts in %(length)s, others are skipped") % values
    text = _("%(limit)s starts in %(length)s") % values
    if rule.burst > 1:
        text += _(", %(burst)s at once") % {"burst": rule.burst}
    return text


def declared_limit(limit: Any) -> str:
    """Return a limit as declared: a number or the source of an expression."""
    return str(limit) if isinstance(limit, int) else source_of(limit)


def _keyed(text: Any, key: Any) -> str:
    if key is None:
        return str(text)
    return _("%(limit)s per %(key)s") % {"limit": text, "key": source_of(key)}


def source_of(value: Any) -> str:
    """Return the source of an expression, or the name of a callable."""
    if isinstance(value, Expression):
        return value.source
    if isinstance(value, str):
        return value
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    return str(value)


def settings(function: Function) -> list[Fact]:
    """Return a function's other options with labels."""
    controls, ends = function.flow_control, function.timeouts
    facts: list[tuple[Any, Any]] = [
        (_("retries"), str(function.retries)),
        (_("backoff"), _backoff(function.backoff)),
        (_("priority"), controls.priority and source_of(controls.priority)),
        (_("idempotency key"), controls.idempotency and
         source_of(controls.idempotency)),
        (_("must start within"), ends.start and _length(ends.start)),
        (_("must end within"), ends.finish and _length(ends.finish)),
        *((_("cancelled by"), _cancel(rule)) for rule in function.cancel_on),
        *((_("about"), _subject(rule)) for rule in function.subjects),
        (_("on failure"), function.on_failure and function.on_failure.id),
        (_("on cancel"), function.on_cancel and function.on_cancel.id),
        (_("on completion"), function.on_complete and function.on_complete.id),
    ]  # fmt: skip
    return [(label, text) for label, text in facts if text]


def _subject(rule: Any) -> str:
    return f"{rule.model} {source_of(rule.expression)}"


def _cancel(rule: Any) -> str:
    parts = [
        rule.event,
        rule.match and f"({rule.match})",
        rule.if_ and source_of(rule.if_),
    ]
    return " ".join(part for part in parts if part)


def _backoff(backoff: Any) -> str:
    if getattr(backoff, "initial", None) is None:
        return source_of(getattr(backoff, "function", backoff))
    text = str(length(backoff.initial))
    if backoff.factor != 1:
        text += _(", then times %(factor)g") % {"factor": backoff.factor}
    if backoff.step:
        text += _(", then %(step)s more") % {"step": length(backoff.step)}
    if backoff.longest != backoff.initial:
        text += _(", up to %(longest)s") % {"longest": length(backoff.longest)}
    return text


def _length(value: Any) -> str:
    return str(length(parse_duration(value)))


# What a run waits for

_WAITS: dict[str, Any] = {
    WaitKind.SLEEP: gettext_lazy("sleeps until"),
    WaitKind.RETRY: gettext_lazy("next attempt"),
    WaitKind.POLL: gettext_lazy("next check"),
    WaitKind.TIMEOUT: gettext_lazy("times out"),
    WaitKind.EVENT: gettext_lazy("waits for the event"),
    WaitKind.SIGNAL: gettext_lazy("waits for the signal"),
    WaitKind.MODEL: gettext_lazy("waits for"),
    WaitKind.CHILD: gettext_lazy("waits for the run"),
    WaitKind.CALLBACK: gettext_lazy("waits for a callback"),
    WaitKind.APPROVAL: gettext_lazy("waits for approval by"),
    WaitKind.CANCEL: gettext_lazy("cancelled if this event arrives:"),
    WaitKind.START_BY: gettext_lazy("must start by"),
    WaitKind.FINISH_BY: gettext_lazy("must end by"),
}
_HEARTBEAT = gettext_lazy("needs a heartbeat")


def describe_wait(wait: Wait, links: Links) -> SafeString:
    """Describe a wait and its due time."""
    words: Any = _WAITS.get(wait.kind, wait.kind)
    if wait.kind == WaitKind.TIMEOUT and wait.name:
        words = _HEARTBEAT
    text = format_html("{} {}", words, _what(wait, links))
    return format_html("{}: {}", wait.branch, text) if wait.branch else text


def describe_decision(kind: str, detail: Any) -> str | None:
    """Describe the decision of an ``approve`` step, or return None without one."""
    if kind != "approve" or not isinstance(detail, dict):
        return None
    name = detail.get("name") or _("an unknown user")
    if detail.get("decision") == "approved":
        return _("approved by %(name)s") % {"name": name}
    if detail.get("decision") == "rejected":
        return _("rejected by %(name)s") % {"name": name}
    return None


def _what(wait: Wait, links: Links) -> Any:
    if wait.kind == WaitKind.CHILD:
        return links.anchor(links.page(Run, wait.name), tail(wait.name))
    if wait.kind == WaitKind.APPROVAL:
        return links.anchor(links.approval(wait), wait.name)
    if wait.kind == WaitKind.MODEL:
        # ``due_at`` is the time of the engine's next check, not a timeout.
        return format_html("<strong>{} {}</strong>", wait.name, wait.match)
    if wait.due_at is not None:
        return relative_time(wait.due_at)
    return format_html("<strong>{}</strong>", wait.name)
