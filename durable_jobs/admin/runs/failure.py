"""The error of a failed run: its step, its attempts, its input and its frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from durable_jobs import ids
from durable_jobs.admin.links import Links
from durable_jobs.admin.object_links import References
from durable_jobs.admin.payloads import (
    hidden,
    parse_error,
    payload,
    preformatted,
    stored,
)
from durable_jobs.admin.runs import actions
from durable_jobs.models import Run, Step
from durable_jobs.store import db

#: Kinds of steps whose ``attempt`` is the number of retries.
RETRIED = frozenset({"run", "atomic", "branch"})
#: Levels of parents in which the step of the function itself is looked for.
LEVELS = tuple("__".join(["parent"] * depth) + "__key" for depth in range(1, 6))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailure:
    """The error of a run. ``frames`` are those of the body that raised it.

    ``whole`` is the traceback of the function, if it has more than ``frames``.
    """

    headline: SafeString
    links: list[tuple[str, Any]]
    note: SafeString | None = None
    frames: SafeString | None = None
    input: SafeString | None = None
    whole: SafeString | None = None


def run_failure(
    admin: Any, run: Any, links: Links, allowed: set[str], show_payloads: bool
) -> RunFailure | None:
    """Return the error of a run, or None without one.

    ``allowed`` are the actions that the viewer may use on the run.
    """
    if run.error_text is None:
        return None
    error = parse_error(run.error_text)
    if error is None:
        text = payload(run.error_text, _("Error")) if show_payloads else hidden()
        headline = format_html("{}", _("The run failed"))
        return RunFailure(headline=headline, links=[], note=text)
    step = _step(run, str(error.get("step") or ""))
    headline = format_html(
        "{}: <strong>{}</strong> {}",
        _where(run, step, links),
        error["type"],
        error["message"] if show_payloads else "",
    )
    buttons = [*_links(admin, run, step, allowed)]
    if not show_payloads:
        return RunFailure(headline=headline, links=buttons, note=hidden())
    inner = (parse_error(step["error_text"] or "") or {}) if step else {}
    whole = str(error.get("traceback") or "")
    frames = str(inner.get("traceback") or whole)
    text = step["input_text"] if step else None
    return RunFailure(
        headline=headline,
        links=buttons,
        frames=_block(frames, _("Traceback")),
        input=payload(text, _("Input"), References(links, [text])),
        whole=_block(whole if whole != frames else "", _("Traceback of the function")),
    )


def _block(text: str, name: Any) -> SafeString | None:
    return preformatted(text, name) if text else None


def _step(run: Run, key: str) -> dict[str, Any] | None:
    """Return the step whose error ended a run, with the keys of its parents."""
    if not key:
        return None
    rows = db.rows(Step).filter(pk=ids.step_pk(run.pk, key))
    texts = {"input_text": stored("input"), "error_text": stored("error")}
    columns = ("pk", "key", "name", "kind", "attempt", *LEVELS, *texts)
    found: dict[str, Any] | None = rows.annotate(**texts).values(*columns).first()
    return found


def _where(run: Run, step: dict[str, Any] | None, links: Links) -> SafeString:
    """Return what failed, and after how many attempts if there were several."""
    retries = run.attempt
    what = format_html("{}", _("The function"))
    if step is not None:
        retries = step["attempt"] if step["kind"] in RETRIED else 0
        link = links.anchor(links.page(Step, step["pk"]), step["name"])
        what = format_html(_("Step {}"), link)
    if not retries:
        return format_html(_("{} failed"), what)
    text = ngettext(
        "{} failed after {} attempt", "{} failed after {} attempts", retries + 1
    )
    return format_html(text, what, retries + 1)


def _links(
    admin: Any, run: Run, step: dict[str, Any] | None, allowed: set[str]
) -> Iterator[tuple[str, Any]]:
    if "redrive" in allowed:
        yield actions.url_of(admin, run, "redrive"), _("redrive")
    if step is None or "rerun" not in allowed:
        return
    # A rerun starts from a step of the function itself, not from an inner step.
    keys = [step["key"], *(step[level] for level in LEVELS)]
    if keys[-1] is None:
        first = urlencode({"from_step": [key for key in keys if key][-1]})
        yield f"{actions.url_of(admin, run, 'rerun')}?{first}", _("rerun from here")
