"""Parse ``DATABASE_URL`` and ``BROKER_URL`` into settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

Settings = dict[str, Any]

# Without these options, concurrent writers fail with "database is locked".
SQLITE_OPTIONS: Settings = {
    "timeout": 20,
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL",
}
MEMORY = ":memory:"


def database(url: str) -> Settings:
    """Return the entry of ``DATABASES`` for ``url``."""
    scheme = url.partition(":")[0]
    if scheme in ("postgres", "postgresql"):
        return _postgresql(url)
    if scheme == "sqlite":
        return _sqlite(url)
    msg = (
        "Expected DATABASE_URL to be postgresql://user@host/name, "
        f"sqlite:///path or sqlite://{MEMORY}, not a {scheme!r} address."
    )
    raise ImproperlyConfigured(msg)


def _postgresql(url: str) -> Settings:
    """Parse the URL. ``?host=/directory`` names a socket; other options are libpq's."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.removeprefix("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": options.pop("host", parts.hostname or ""),
        "PORT": options.pop("port", str(parts.port or "")),
        "OPTIONS": options,
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
    }


def _sqlite(url: str) -> Settings:
    """Parse ``sqlite:///relative``, ``sqlite:////absolute`` or ``sqlite://:memory:``."""
    name = unquote(url.removeprefix("sqlite://"))
    settings: Settings = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": MEMORY,
        "OPTIONS": dict(SQLITE_OPTIONS),
    }
    if name in (MEMORY, f"/{MEMORY}"):
        return settings
    path = Path(name.removeprefix("/")).absolute()
    # The test database is a file too, so that other processes can open it.
    test = {"NAME": str(path.with_name(f"test_{path.name}"))}
    return settings | {"NAME": str(path), "TEST": test}


def broker(url: str) -> tuple[str, Settings]:
    """Return Celery's ``broker_url`` and ``broker_transport_options`` for ``url``.

    ``filesystem:///directory`` stores the queues as files in the directory.
    """
    if url.startswith("memory:"):
        return url, {"polling_interval": 0.05}
    if url.startswith("redis"):
        return url, {"socket_timeout": 5.0, "socket_connect_timeout": 5.0}
    if not url.startswith("filesystem:"):
        return url, {}
    folder = Path(unquote(urlsplit(url).path))
    queue, control = folder / "queue", folder / "control"
    for path in (queue, control):
        path.mkdir(parents=True, exist_ok=True)
    return "filesystem://", {
        "data_folder_in": str(queue),
        "data_folder_out": str(queue),
        "control_folder": str(control),
        "polling_interval": 0.1,
    }
