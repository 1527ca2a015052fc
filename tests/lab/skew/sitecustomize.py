"""Loaded by Python before all else, where this directory is in ``PYTHONPATH``.

``LAB_SKEW`` is by how many seconds the wall clock of this process is wrong. Its
monotonic clock goes on as it is, as when a machine's time is set.
"""

from __future__ import annotations

import os
import time

import time_machine

if seconds := os.environ.get("LAB_SKEW"):
    time_machine.travel(time.time() + float(seconds), tick=True).start()
