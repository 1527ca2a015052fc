"""The HTTP API: typed, permission-aware, below ``api/v1/``.

Reads come from ``queries``, every change goes through ``control``. Whoever asks is told
by a key, or by the admin's own session; nothing but these two and the signed tokens of
callbacks opens anything.
"""

from __future__ import annotations
