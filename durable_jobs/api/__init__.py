"""The HTTP API below ``api/v1/``: typed endpoints with permission checks.

Reads come from ``queries``, and every change goes through ``control``. A request is
authenticated by an API key, an admin session, or the signed token of a callback.
"""

from __future__ import annotations
