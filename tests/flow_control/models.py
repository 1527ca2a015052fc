"""Small models of flow control, which compute the expected result in memory.

Times are whole milliseconds from the beginning.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sent:
    """An event of the stream: when it is sent, its key, and its ``ts``."""

    n: int
    at: int
    key: Hashable = None
    ts: int = 0
    ahead: int = 0
    length: int = 0


def throttled(sent: Sequence[Sent], limit: int, per: int, burst: int) -> dict[int, int]:
    """Return start times: a bucket of ``burst`` that fills by ``limit`` in ``per``.

    The unit is one ``limit``-th of a token, so that all numbers are whole.
    """
    level: dict[Hashable, int] = defaultdict(lambda: burst * per)
    last: dict[Hashable, int] = defaultdict(int)
    starts = {}
    for one in sent:
        now = max(one.at, last[one.key])
        have = min(burst * per, level[one.key] + (now - last[one.key]) * limit)
        if have < per:
            wait = -(-(per - have) // limit)
            now, have = now + wait, have + wait * limit
        level[one.key], last[one.key] = have - per, now
        starts[one.n] = now
    return starts


def in_windows(sent: Sequence[Sent], limit: int, per: int) -> set[int]:
    """Return accepted starts: never more than ``limit`` in any window of ``per``."""
    let_in: dict[Hashable, list[int]] = defaultdict(list)
    found = set()
    for one in sent:
        recent = [at for at in let_in[one.key] if one.at - per < at <= one.at]
        if len(recent) < limit:
            insort(let_in[one.key], one.at)
            found.add(one.n)
    return found


def debounced(
    sent: Sequence[Sent], period: int, timeout: int | None
) -> list[tuple[int, Hashable, list[int]]]:
    """Return ``(when, key, events)`` of each run, the latest by ts first."""
    found = []
    keys = dict.fromkeys(one.key for one in sent)
    for key in keys:
        mine = [one for one in sent if one.key == key]
        while mine:
            first, inside, due = mine[0], [mine[0]], mine[0].at + period
            if timeout is not None:
                due = min(due, first.at + timeout)
            for one in mine[1:]:
                if one.at >= due:
                    break
                inside.append(one)
                due = one.at + period
                if timeout is not None:
                    due = min(due, first.at + timeout)
            ranked = sorted(inside, key=lambda one: (one.ts, one.n), reverse=True)
            found.append((due, key, [one.n for one in ranked]))
            mine = mine[len(inside) :]
    return sorted(found, key=lambda run: (run[0], run[2]))


def batched(
    sent: Sequence[Sent], size: int, timeout: int
) -> list[tuple[int, Hashable, list[int]]]:
    """Return ``(when, key, events)`` of each run."""
    found = []
    keys = dict.fromkeys(one.key for one in sent)
    for key in keys:
        mine = [one for one in sent if one.key == key]
        while mine:
            limit = mine[0].at + timeout
            inside = [one for one in mine if one.at < limit or one is mine[0]][:size]
            full = len(inside) == size
            when = inside[-1].at if full else limit
            found.append((when, key, [one.n for one in inside]))
            mine = mine[len(inside) :]
    return sorted(found, key=lambda run: (run[0], run[2]))


def one_at_a_time(sent: Sequence[Sent]) -> dict[int, int]:
    """Return start times of runs that wait for earlier runs of their key."""
    free: dict[Hashable, int] = defaultdict(int)
    starts = {}
    for one in sent:
        starts[one.n] = max(one.at, free[one.key])
        free[one.key] = starts[one.n] + one.length
    return starts


def singles(sent: Sequence[Sent], mode: str) -> dict[int, str]:
    """Return how each run of a singleton ends that skips or cancels."""
    live: dict[Hashable, Sent] = {}
    ends = {}
    for one in sent:
        before = live.get(one.key)
        # A run counts as live at the moment it was sent, however short it is.
        busy = before is not None and one.at < max(
            before.at + before.length, before.at + 1
        )
        if busy and mode == "skip":
            ends[one.n] = "skipped"
            continue
        if busy and before is not None:
            ends[before.n] = "cancelled"
        live[one.key] = one
        ends[one.n] = "completed"
    return ends


def places(sent: Sequence[Sent], count: int) -> dict[int, int]:
    """Return start times for ``count`` slots, with priorities."""
    waiting: list[tuple[int, int, Sent]] = []
    busy: list[int] = []
    starts = {}
    coming = sorted(sent, key=lambda one: (one.at, one.n))
    now = 0
    while coming or waiting:
        while coming and coming[0].at <= now:
            one = coming.pop(0)
            insort(waiting, (one.at - 1000 * one.ahead, one.n, one))
        busy = [end for end in busy if end > now]
        while waiting and len(busy) < count:
            one = waiting.pop(0)[2]
            starts[one.n] = now
            if one.length:
                busy.append(now + one.length)
        moments = [one.at for one in coming[:1]] + ([min(busy)] if waiting else [])
        now = min(moments, default=now)
    return starts
