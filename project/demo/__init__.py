"""The demo of ``manage.py durable_demo``: an import that continues after a kill."""

from __future__ import annotations
