"""What a live run waits for or executes, for the top of its page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.utils.html import conditional_escape, format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _

from durable_jobs import clock, ids
from durable_jobs.admin.display import length, relative_time, short, tail
from durable_jobs.admin.links import Links
from durable_jobs.admin.runs.timeline import WaitLinks
from durable_jobs.models import Run, Step, WaitKind
from durable_jobs.queries import explain, live_waits
from durable_jobs.queries.live_waits import LiveState, LiveStep, LiveWait
from durable_jobs.statuses import RunStatus

#: Lines that are shown unfolded.
MAX_LINES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReason:
    """Lines about a live run. With ``summary``, the lines are folded below it."""

    lines: list[SafeString]
    summary: str = ""


def run_reason(
    run: Run, links: Links, wait_links: WaitLinks, show_payloads: bool
) -> RunReason | None:
    """Return what a live run waits for, or None for a run that has ended."""
    if not run.is_live:
        return None
    if run.status == RunStatus.QUEUED:
        return RunReason(lines=[_queued(run, links, show_payloads)])
    state = live_waits.live_state(run, values=show_payloads)
    lines = [*_first(run, state, links)]
    waits = [wait_links(one.wait, _sentence(one, links)) for one in state.waits]
    if len(waits) <= MAX_LINES:
        return RunReason(lines=lines + waits)
    parts = [*lines, live_waits.summary(state)]
    summary = format_html_join(" · ", "{}", ((part,) for part in parts))
    return RunReason(lines=waits, summary=summary)


def _queued(run: Run, links: Links, show_payloads: bool) -> SafeString:
    """Return the explanation with short links in place of the ids of runs."""
    why = explain.explain_current(run, keys=show_payloads)
    text: str = conditional_escape(why.text)
    for pk in why.holders:
        text = text.replace(pk, links.anchor(links.page(Run, pk), short(pk)))
    found = mark_safe(text)  # noqa: S308  # escaped above, as the links are
    if why.estimate is None:
        return found
    left = why.estimate - clock.now()
    about = _("starts in about %(length)s") % {"length": length(left)}
    return format_html('{} <span class="durable-quiet">· {}</span>', found, about)


def _first(run: Run, state: LiveState, links: Links) -> Iterator[SafeString]:
    """Yield the lines about the run itself and its executing steps."""
    if run.status == RunStatus.PAUSED:
        text = _("Paused: {}") if run.reason else _("Paused")
        yield format_html(text, run.reason)
    elif run.status == RunStatus.RUNNING:
        yield _executing(run, state, links)
    elif not state.waits:
        yield format_html("{}", _("The run waits for its next attempt."))


def _executing(run: Run, state: LiveState, links: Links) -> SafeString:
    steps = state.running[:MAX_LINES]
    if steps:
        named = format_html_join(
            ", ", "{}", ((_with_time(step, links),) for step in steps)
        )
        rest = len(state.running) - len(steps)
        more = _(" and %(count)s more") % {"count": rest} if rest else ""
        return format_html(_("Running {}{} on worker {}"), named, more, run.worker)
    text = format_html(_("Running on worker {}"), run.worker)
    if state.last is not None and state.last.at is not None:
        ended = _("; the last step, {}, ended {}")
        return text + format_html(
            ended, _link(state.last, links), relative_time(state.last.at)
        )
    if run.started_at is None or run.claim_count != 1:
        return text
    since = _(" for %(length)s") % {"length": length(clock.now() - run.started_at)}
    return text + format_html("{}", since)


def _with_time(step: LiveStep, links: Links) -> SafeString:
    link = _link(step, links)
    if step.at is None:
        return link
    return format_html(_("{} for {}"), link, length(clock.now() - step.at))


def _link(step: LiveStep, links: Links) -> SafeString:
    return links.anchor(links.page(Step, step.pk), step.name)


def _sentence(one: LiveWait, links: Links) -> SafeString:
    """Return the sentence for a wait, with links to its step and what it waits for."""
    wait = one.wait
    step = one.step or tail(wait.step)
    page = links.page(Step, ids.step_pk(wait.run_id, wait.step)) if one.step else None
    name: Any = format_html("<strong>{}</strong>", wait.name)
    if wait.kind == WaitKind.CHILD:
        name = links.anchor(links.page(Run, wait.name), short(wait.name))
    elif wait.kind == WaitKind.APPROVAL:
        name = links.anchor(links.approval(wait), wait.name)
    return format_html(
        live_waits.template(one),
        step=links.anchor(page, step),
        name=name,
        match=wait.match,
        until=relative_time(one.until),
        error=one.error,
        value=one.value,
    )
