"""Python loads this module first, if its directory is in ``PYTHONPATH``.

``LAB_SKEW`` is the error of this process's wall clock in seconds. The monotonic clock
is unchanged, as when a machine's time is set.
"""

from __future__ import annotations

import os
import time

import time_machine

if seconds := os.environ.get("LAB_SKEW"):
    wrong = time.time() + float(seconds)  # noqa: TID251  # the wall clock is meant
    time_machine.travel(wrong, tick=True).start()
