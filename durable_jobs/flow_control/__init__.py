"""Flow control: which queued runs may start or continue, and in which order.

Senders only write runs. After their commit, an *admission* decides about the runs.
Workers and the tick run admissions: short transactions, one at a time per installation
(``store.limits.lock``). So senders do not wait for each other, counts are exact without
locks on your project's rows, and nothing can deadlock.

A new run of a function with limits is not claimable. It is *screened*, in the order of
``due_at``: rate limits, singletons and pauses may skip it. Otherwise it enters a
*backlog*: the queue of runs of one function, queue and combination of keys. A backlog
has *limits*: ordering, singletons, throttles and concurrency. If all limits have room,
the first run of the backlog acquires a slot at each, and is *promoted*: workers may
claim it. If a limit is full, the whole backlog waits for that limit, whatever its
length. A released slot restarts the backlog that has waited longest for the limit.
Backlogs are served round-robin, so a long one does not delay the others.

::

    queued ──▶ screened ──▶ in a backlog ──▶ promoted ──▶ claimed ──▶ at rest | ended
                  │            ▲  │ a limit is full          │
                  ▼            │  ▼                          ▼
               skipped       backlog waits ◀───────── its slots are released
"""

from __future__ import annotations
