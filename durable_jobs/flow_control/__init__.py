"""Flow control: which queued runs may start or go on, and in which order.

A sender only writes. What its runs may do is decided after its commit, in *admissions*,
of which there is one at a time in an installation (``store.limits.lock``): short
transactions that workers and the tick make. So no sender waits for another one, counts
are exact without any lock that a host could hold, and nothing can deadlock.

A run whose function has limits does not stand where workers claim. It arrives, in the
order of ``place``; what rate limits, singletons and pauses refuse is skipped there. The
others stand in a *backlog*, one for each function, queue and combination of keys. A
backlog passes *limits*: of ordering, singletons, throttles and concurrency. When all
the limits of its first run have room, the run takes a slot at each and may be claimed
as any other one. When one has none, the whole backlog waits for that limit, whatever
its length. A slot that is released lets the backlog that has waited longest for its
limit try again. Backlogs take turns, so that one with many runs does not keep the
others waiting.

::

    written ──▶ arrived ──▶ in a backlog ──▶ let through ──▶ claimed ──▶ at rest | ended
                  │            ▲  │ a limit is full              │
                  ▼            │  ▼                             ▼
               skipped        backlog waits ◀──────────── its slots are released
"""

from __future__ import annotations
