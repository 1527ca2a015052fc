"""What ``manage.py durable_demo`` shows: an import that outlives its worker."""

from __future__ import annotations
