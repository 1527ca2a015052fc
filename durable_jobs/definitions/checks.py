"""System checks of the settings and the database."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Info, Warning  # Django's names
from django.db import connections
from django.utils.module_loading import import_string

from durable_jobs import conf
from durable_jobs.definitions.registry import registry
from durable_jobs.definitions.signature_schemes import Scheme
from durable_jobs.exceptions import ConfigurationError

#: The least number of characters of a secret in the settings.
SHORTEST_KEY = 24


def check_installation(**kwargs: Any) -> list[CheckMessage]:
    """Check the settings and the database that holds the runs."""
    found: list[CheckMessage] = [
        Error(message, hint=hint, id="durable_jobs.E001")
        for message, hint in conf.problems()
    ]
    if found:
        return found
    if not django_settings.USE_TZ:
        found.append(
            Error(
                "durable_jobs needs USE_TZ = True.",
                hint="Times of several hosts are compared. Naive times cannot be.",
                id="durable_jobs.E002",
            )
        )
    found += _webhook_secrets() + _event_keys() + _visibility_rule()
    return found + _sqlite_options() + _live_pages()


def _visibility_rule() -> list[CheckMessage]:
    """Check that ``VISIBLE_RUNS`` names a function that can be imported."""
    path = conf.settings.VISIBLE_RUNS
    if path is None:
        return []
    try:
        if callable(import_string(path)):
            return []
        problem = "not callable"
    except ImportError as error:
        problem = str(error)
    return [
        Error(
            f"The setting DURABLE_JOBS['VISIBLE_RUNS'] is {path!r}: expected the "
            f"dotted path of a function ({problem}).",
            hint="Until this is fixed, every page and request about runs returns 403.",
            id="durable_jobs.E006",
        )
    ]


def _webhook_secrets() -> list[CheckMessage]:
    """Find webhooks whose secret is missing in the settings."""
    found: list[CheckMessage] = []
    for path in registry.webhook_paths():
        verify = registry.webhooks(path)[0][1].verify
        if not isinstance(verify, Scheme) or not verify.secrets.from_setting:
            continue
        try:
            verify.secrets.read()
        except ConfigurationError as error:
            found.append(
                Error(
                    f"Webhook({path!r}): {error.message}",
                    hint="Without a secret, every delivery is rejected.",
                    id="durable_jobs.E003",
                )
            )
    return found


def _event_keys() -> list[CheckMessage]:
    """Find secrets that are too short."""
    short = sum(len(key) < SHORTEST_KEY for key in conf.settings.EVENT_KEYS)
    if not short:
        return []
    return [
        Warning(
            f"{short} of the EVENT_KEYS have fewer than {SHORTEST_KEY} characters.",
            hint="Create one with: python -c 'import secrets; "
            "print(secrets.token_urlsafe(32))'",
            id="durable_jobs.W002",
        )
    ]


def _sqlite_options() -> list[CheckMessage]:
    alias = conf.settings.DATABASE
    if connections[alias].vendor != "sqlite":
        return []
    options = connections[alias].settings_dict.get("OPTIONS", {})
    if str(options.get("transaction_mode", "")).upper() == "IMMEDIATE":
        return []
    return [
        Warning(
            f"The SQLite database {alias!r} does not use immediate transactions.",
            hint=(
                'Set its OPTIONS to {"timeout": 20, "transaction_mode": "IMMEDIATE", '
                '"init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL"}. '
                "Without it, concurrent work fails with 'database is locked'."
            ),
            id="durable_jobs.W001",
        )
    ]


def _live_pages() -> list[CheckMessage]:
    if not apps.is_installed("django.contrib.admin"):
        return []
    if apps.is_installed("django_htmx"):
        return []
    return [
        Info(
            "The run pages in the admin do not update live.",
            hint='Add "django_htmx" to INSTALLED_APPS. The package is installed.',
            id="durable_jobs.I001",
        )
    ]
