"""The code in a peer's own environment: settings, tasks and services."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import parse_qsl, urlsplit


def database() -> dict[str, Any]:
    """Return Django's settings for ``DATABASE_URL``, with persistent connections."""
    parts = urlsplit(os.environ["DATABASE_URL"])
    options = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.removeprefix("/"),
        "USER": parts.username or "",
        "PASSWORD": parts.password or "",
        "HOST": options.pop("host", parts.hostname or ""),
        "PORT": str(parts.port or ""),
        "OPTIONS": options,
        "CONN_MAX_AGE": None,
    }
