"""Runs as each release has recorded them: they must go on in the code of today.

``python -m tests.golden record`` writes them once, when a release is made, as
``tests/golden/<release>/<case>.json``. From then on they are never edited: what a later
release cannot go on with is that release's to carry over, by a data migration.
"""

from __future__ import annotations
