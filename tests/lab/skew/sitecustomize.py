"""Loaded by Python before all else, where this directory is in ``PYTHONPATH``.

``LAB_SKEW`` is by how many seconds the wall clock of this process is wrong. Its
monotonic clock goes on as it is, as when a machine's time is set.
"""

from __future__ import annotations

import os
import time

import time_machine

if seconds := os.environ.get("LAB_SKEW"):
    wrong = time.time() + float(seconds)  # noqa: TID251  # the wall clock is meant
    time_machine.travel(wrong, tick=True).start()
