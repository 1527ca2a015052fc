"""The peers, one module each: what it needs, and an adapter that drives it."""

from __future__ import annotations

import importlib

from bench.adapters import Peer

#: In the order of the table.
NAMES = (
    "ours",
    "dbos",
    "absurd",
    "django_absurd",
    "restate",
    "pgqueuer",
    "procrastinate",
    "django_tasks_db",
    "celery_chain",
    "celery_one",
)


def peer(name: str) -> Peer:
    """Return what is to be known of a peer; its packages need not be there."""
    found: Peer = importlib.import_module(f"bench.peers.{name}").PEER
    return found
