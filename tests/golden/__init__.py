"""Recorded runs of each release, which must continue in today's code.

``python -m tests.golden record`` records them once, for a release, as
``tests/golden/<release>/<case>.json``. They are never edited afterwards. If a later
release cannot continue a recorded run, it needs a data migration.
"""

from __future__ import annotations
