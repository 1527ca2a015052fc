"""Explain a live run: its waits and steps, or its limit, holders and position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q, QuerySet
from django.db.models.fields.json import KT

from durable_jobs import clock
from durable_jobs.definitions.explanation import Explanation
from durable_jobs.definitions.flow_control import Throttle
from durable_jobs.definitions.registry import registry
from durable_jobs.flow_control import keys, limits
from durable_jobs.flow_control import pauses as pause_state
from durable_jobs.flow_control.keys import KeyedLimit
from durable_jobs.models import (
    AdmissionState,
    Backlog,
    FailedAttempt,
    Limit,
    Pause,
    Run,
)
from durable_jobs.queries import live_waits, routes, visibility
from durable_jobs.queries.live_waits import LiveState, live_state
from durable_jobs.statuses import RunStatus
from durable_jobs.store import backlogs, db, left_work, pauses, workers
from durable_jobs.store import limits as limit_rows

MOST_AHEAD = 1000
MOST_HOLDERS = 20
#: Waits that ``text`` describes one by one.
MAX_SENTENCES = 3
#: How far back an estimate looks for ended runs, how many it reads of all functions,
#: and how many of the same key it uses.
RECENT, MAX_ENDED, SAMPLE = timedelta(hours=1), 1000, 20


def explain(run: Run, *, keys: bool = True) -> Explanation:
    """Explain what a run waits for now.

    Without ``keys``, leave out the keys of flow control and the errors of dynamic
    limits, which may contain parts of a payload.
    """
    row = db.rows(Run).defer("data", "output").get(pk=run.pk)
    return explain_current(row, keys=keys)


def explain_current(row: Run, *, keys: bool = True) -> Explanation:
    """Explain a run that was just loaded."""
    if row.status != RunStatus.QUEUED:
        return of_state(row, live_state(row, values=keys) if row.is_live else None)
    found = _paused(row, keys) or _delayed(row) or _unknown(row) or _newer_version(row)
    if found is not None:
        return found
    if row.backlog is None:
        return _ready(row)
    if row.backlog in AdmissionState.values:
        text = "The run was just queued and is waiting for flow control."
        return Explanation(state="arriving", text=text)
    return _in_backlog(row, keys)


def of_state(run: Run, state: LiveState | None) -> Explanation:
    """Explain a run that is not queued by its waits and steps."""
    texts = [f"The run is {run.status}{f': {run.reason}' if run.reason else '.'}"]
    waits = [] if state is None else [live_waits.as_text(one) for one in state.waits]
    if state is not None and run.status == RunStatus.RUNNING:
        texts.append(_executing(run, state))
    if state is not None and len(waits) > MAX_SENTENCES:
        texts.append(f"{live_waits.summary(state)}.")
    else:
        texts += [f"{wait}." for wait in waits]
    if run.status == RunStatus.WAITING:
        texts += [
            f"The event {event.name} ({event.pk}) is not matched with all waits "
            f"yet. {routes.described(event)}".rstrip()
            for event in routes.unrouted_for(run)
        ]
    return Explanation(state=run.status, text=" ".join(texts), waits=waits)


def _executing(run: Run, state: LiveState) -> str:
    steps = ", ".join(repr(step.name) for step in state.running[:MAX_SENTENCES])
    rest = len(state.running) - MAX_SENTENCES
    where = f"on worker {run.worker!r}"
    if steps:
        return f"Executing {steps}{f' and {rest} more' if rest > 0 else ''} {where}."
    if state.last is not None and state.last.at is not None:
        at = state.last.at.isoformat()
        return f"Executing {where}; step {state.last.name!r} ended at {at}."
    return f"Executing {where}."


def _paused(run: Run, with_keys: bool) -> Explanation | None:
    if pauses.of_queue(run.queue).exists():
        return Explanation(state="paused", text=f"The queue {run.queue!r} is paused.")
    if run.started_at is not None:
        return None
    values = (run.flow or {}).values()
    held = pause_state.pause_of(pause_state.load(), run.function, values)
    if held is None:
        return None
    name = f"Key {held.key} of " if with_keys else "A key of "
    what = name if held.kind == Pause.KEY else ""
    why = f": {held.reason}" if held.reason else "."
    text = f"{what}{run.function} is paused{why}"
    return Explanation(state="paused", text=text, ahead=_ahead(_queued_with(run), run))


def _delayed(run: Run) -> Explanation | None:
    if run.due_at <= clock.now():
        return None
    text = f"The run starts at {run.due_at.isoformat()}."
    if run.attempt:
        kind = _last_error(run)
        after = f", after {kind}" if kind else ""
        text = f"The next attempt starts at {run.due_at.isoformat()}{after}."
    return Explanation(state="delayed", text=text, estimate=run.due_at)


def _last_error(run: Run) -> str:
    """Return the type of the error of the function's last attempt."""
    rows = db.rows(FailedAttempt).filter(run_id=run.pk, step="").order_by("-pk")
    return str(rows.values_list(KT("error__type"), flat=True).first() or "")


def _unknown(run: Run) -> Explanation | None:
    """Explain a run whose function no worker has."""
    since = workers.missing_since(run.function)
    if since is None:
        if registry.find(run.function) is not None:
            return None
        known = workers.functions()
        if known is None or run.function in known:
            return None
    text = (
        f"No worker has the function {run.function!r} since "
        f"{(since or run.due_at).isoformat()}. The run starts when a worker has it."
    )
    return Explanation(state="unknown-function", text=text)


def _newer_version(run: Run) -> Explanation | None:
    needs = left_work.needed_version_of(run.pk)
    if needs is None:
        return None
    text = (
        f"The run needs a newer version of durable_jobs: {needs.rstrip('.')}. It "
        f"continues when a worker has that version."
    )
    return Explanation(state="newer-version", text=text)


def _ready(run: Run) -> Explanation:
    ahead = _ahead(_queued_with(run), run)
    text = (
        f"The run is ready for the next worker of queue {run.queue!r}, "
        f"behind {_others(ahead)}."
    )
    return Explanation(state="ready", text=text, ahead=ahead)


def _queued_with(run: Run) -> QuerySet[Run]:
    """Return the queued runs of the same backlog, or of the same queue if ready."""
    if run.backlog is not None:
        return backlogs.waiting(run.backlog)
    return db.rows(Run).filter(
        status=RunStatus.QUEUED,
        backlog__isnull=True,
        queue=run.queue,
        due_at__lte=clock.now(),
    )


def _ahead(queued: QuerySet[Run], run: Run) -> int:
    before = Q(run_order__lt=run.run_order) | Q(run_order=run.run_order, id__lt=run.id)
    seen = visibility.of_runs(queued, "pk")
    return int(seen.filter(before).order_by()[:MOST_AHEAD].count())


def _in_backlog(run: Run, with_keys: bool) -> Explanation:
    backlog = db.rows(Backlog).filter(pk=run.backlog or 0).first()
    function = registry.find(run.function)
    ahead = _ahead(backlogs.waiting(run.backlog or 0), run)
    if backlog is None or function is None:
        text = f"The run is in the backlog behind {_others(ahead)}."
        return Explanation(state="blocked", text=text, ahead=ahead)
    keyed_limits = keys.keyed_limits(
        function, run.flow or {}, starting=backlog.for_new_runs
    )
    rows = db.rows(Limit).filter(name__in=[p.name for p in keyed_limits])
    known = {limit_row.name: limit_row for limit_row in rows}
    for keyed_limit in keyed_limits:
        limit_row = known.get(keyed_limit.name)
        if limit_row is None:
            continue
        found = _explain_limit(keyed_limit, limit_row, backlog, ahead, with_keys)
        if found is not None:
            return found if with_keys else replace(found, key=None)
    text = f"The next admission promotes the run, behind {_others(ahead)}."
    return Explanation(state="ready", text=text, ahead=ahead)


def _explain_limit(
    keyed_limit: KeyedLimit,
    limit_row: Limit,
    backlog: Backlog,
    ahead: int,
    with_keys: bool,
) -> Explanation | None:
    """Return an explanation if the run waits for this limit."""
    value = limits.cached_limit(keyed_limit, limit_row)
    if value is None:
        value, _ = limits.evaluate(keyed_limit)
    if value.limit is None:
        why = f": {value.error}" if with_keys else "."
        text = f"The limit of {keyed_limit.declaration} is not known{why}"
        return _explanation(keyed_limit, "blocked", text, ahead=ahead)
    if isinstance(keyed_limit.rule, Throttle) and value.limit:
        return _throttled(
            keyed_limit, keyed_limit.rule, limit_row, value.limit, ahead, with_keys
        )
    held = limit_rows.holders(limit_row.pk)
    shown = visibility.of_runs(held).values_list("run_id", flat=True)
    holders = [str(pk) for pk in shown[:MOST_HOLDERS]]
    full = held.count() >= value.limit
    if not full and not (ahead and limit_row.pk == backlog.blocked_on_id):
        return None
    key = f" for key {keyed_limit.text}" if limit_row.key and with_keys else ""
    others = "other runs" if full else "no run"
    text = (
        f"{keyed_limit.control} {value.limit}{key} of "
        f"{limit_row.function or 'the account'} is reached: "
        f"held by {', '.join(holders) or others}; "
        f"{_before(ahead)}."
    )
    return _explanation(
        keyed_limit,
        "blocked",
        text,
        limit=value.limit,
        holders=holders,
        ahead=ahead,
        estimate=_estimate(keyed_limit, ahead) if value.limit else None,
    )


def _explanation(
    keyed_limit: KeyedLimit, state: str, text: str, **values: Any
) -> Explanation:
    return Explanation(
        state=state,
        text=text,
        control=keyed_limit.control,
        key=keyed_limit.key,
        **values,
    )


def _throttled(
    keyed_limit: KeyedLimit,
    rule: Throttle,
    limit_row: Limit,
    limit: int,
    ahead: int,
    with_keys: bool,
) -> Explanation | None:
    now, interval = clock.now(), rule.interval(limit)
    earliest = (limit_row.tat or now) - interval * (rule.burst - 1)
    start = earliest + interval * ahead
    if start <= now:
        return None
    key = f" for key {keyed_limit.text}" if limit_row.key and with_keys else ""
    text = f"The throttle{key} starts the run at {start.isoformat()}; {_before(ahead)}."
    facts = {"limit": limit, "ahead": ahead, "estimate": start}
    return _explanation(keyed_limit, "throttled", text, **facts)


def _estimate(keyed_limit: KeyedLimit, ahead: int) -> datetime | None:
    """Estimate when a slot is free from the ends of runs with the same key.

    Only the newest ``MAX_ENDED`` runs that ended in the last hour are read.
    """
    now = clock.now()
    ended: Any = db.rows(Run).filter(ended_at__gte=now - RECENT)
    rows = db.rows(Run).filter(
        pk__in=ended.order_by("-ended_at").values("pk")[:MAX_ENDED],
        started_at__isnull=False,
        flow__isnull=False,
    )
    if not keyed_limit.shared:
        rows = rows.filter(function=keyed_limit.function.id)
    newest: Any = rows.order_by("-ended_at").values_list("started_at", "flow")
    starts: list[datetime] = [
        start for start, flow in newest if _has_key(keyed_limit, flow)
    ][:SAMPLE]
    if not starts:
        return None
    since = now - max(min(starts), now - RECENT)
    return now + since * (ahead + 1) / len(starts)


def _has_key(keyed_limit: KeyedLimit, flow: Mapping[str, Any]) -> bool:
    if keyed_limit.shared:  # another function declares it under another name
        return keyed_limit.key in flow.values()
    declaration = keyed_limit.declaration
    return declaration in flow and bool(flow[declaration] == keyed_limit.key)


def _before(ahead: int) -> str:
    return f"{_others(ahead)} {'is' if ahead == 1 else 'are'} before it"


def _others(ahead: int) -> str:
    return f"{_count(ahead)} other{'' if ahead == 1 else 's'}"


def _count(ahead: int) -> str:
    return f"{ahead:,}" if ahead < MOST_AHEAD else f"{MOST_AHEAD:,} or more"
