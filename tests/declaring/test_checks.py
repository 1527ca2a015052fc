"""Django's system checks find errors of an installation."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from celery import Celery
from django.core.checks import CheckMessage, run_checks
from pytest_django import Settings

from durable_jobs.conf import settings as conf
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.worker import system_checks


def found() -> dict[str, CheckMessage]:
    """Run the system checks and return the messages of durable_jobs."""
    return {
        str(one.id): one
        for one in run_checks()
        if str(one.id).startswith("durable_jobs.")
    }


def test_demo_project_has_no_problems() -> None:
    assert found() == {}


def test_celery_app_that_is_never_current_is_not_ambiguous() -> None:
    other = Celery("other", set_as_current=False)
    assert found() == {}
    assert other.main == "other"


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({}, "socket_timeout and no socket_connect_timeout"),
        ({"socket_timeout": 5}, "socket_connect_timeout"),
        ({"socket_timeout": 5, "socket_connect_timeout": 5}, None),
    ],
)
def test_timeouts_missing_for_redis_are_a_warning_that_names_them(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, int], missing: str | None
) -> None:
    app = Celery("redis", broker="redis://127.0.0.1:1/0", set_as_current=False)
    app.conf.broker_transport_options = options
    monkeypatch.setattr(system_checks, "project_app", lambda: app)
    if missing is None:
        assert found() == {}
    else:
        assert found()["durable_jobs.W005"].msg.endswith(f" has no {missing}.")


def test_guessable_secret_is_a_warning_that_hides_it(
    settings: Settings,
) -> None:
    settings.DURABLE_JOBS = {"EVENT_KEYS": ["hunter2", "x" * 24]}
    warning = found()["durable_jobs.W002"]
    assert "1 of the EVENT_KEYS" in warning.msg
    assert "hunter2" not in str(warning)
    settings.DURABLE_JOBS = {"EVENT_KEYS": ["x" * 24]}
    assert found() == {}


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("LEASE_DURATIONS", "LEASE_DURATION"),
        ("tick_interval", "TICK_INTERVAL"),
        ("RETENTON", "RETENTION"),
    ],
)
def test_unknown_setting_is_refused_with_a_suggestion(
    settings: Settings, key: str, meant: str
) -> None:
    settings.DURABLE_JOBS = {key: "5s"}
    error = found()["durable_jobs.E001"]
    assert f"unknown key '{key}'" in error.msg
    assert error.hint == f"Did you mean '{meant}'?"
    assert error.is_serious()


def test_unknown_setting_unlike_any_lists_them_all(settings: Settings) -> None:
    settings.DURABLE_JOBS = {"XYZZY": 1}
    hint = found()["durable_jobs.E001"].hint
    assert hint is not None
    assert "LEASE_DURATION" in hint
    assert "RETENTION" in hint


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"LEASE_DURATION": "a minute"}, "LEASE_DURATION"),
        ({"LEASE_DURATION": 0}, "expected above 0"),
        ({"MAX_STEPS": "many"}, "expected a whole number"),
        ({"RETENTION": {"complete": "30d"}}, "'completed'"),
        ({"EXECUTOR": "celry"}, "'celery'"),
        ({"DATABASE": "replica"}, "an alias in DATABASES"),
        ({"API_RATE": "600/min"}, "is '600/min': expected None or a string such as"),
        ({"API_RATE": "0/1m"}, "is '0/1m': expected None or a string such as"),
        (["LEASE_DURATION"], "expected a dict"),
    ],
)
def test_wrong_value_is_refused_with_what_was_expected(
    settings: Settings, written: Any, expected: str
) -> None:
    settings.DURABLE_JOBS = written
    error = found()["durable_jobs.E001"]
    assert expected in f"{error.msg} {error.hint}"
    # The message is the same where the key is used.
    wrong = next(iter(written)) if isinstance(written, dict) else "LEASE_DURATION"
    with pytest.raises(ConfigurationError):
        getattr(conf, wrong)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("tests.nowhere.visible", "No module named 'tests.nowhere'"),
        ("durable_jobs.conf.visible", 'does not define a "visible" attribute'),
        ("durable_jobs.conf.NAME", "not callable"),
    ],
)
def test_rule_of_visible_runs_that_is_missing_is_an_error(
    settings: Settings, path: str, problem: str
) -> None:
    settings.DURABLE_JOBS = {"VISIBLE_RUNS": path}
    error = found()["durable_jobs.E006"]
    assert repr(path) in error.msg
    assert problem in error.msg
    settings.DURABLE_JOBS = {"VISIBLE_RUNS": "tests.declaring.test_checks.found"}
    assert "durable_jobs.E006" not in found()


def test_naive_times_are_refused(settings: Settings) -> None:
    settings.USE_TZ = False
    error = found()["durable_jobs.E002"]
    assert "USE_TZ = True" in error.msg
    assert error.is_serious()


HOST = """
import json, sys
import django
from django.conf import settings
from django.core.checks import run_checks
from django.test import override_settings
options = json.loads(sys.argv[1])
databases = {
    name: {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:", "OPTIONS": found}
    for name, found in options.items()
}
settings.configure(
    INSTALLED_APPS=["durable_jobs"], DATABASES={"default": {}, **databases}
)
django.setup()
found = {}
for name in options:
    with override_settings(DURABLE_JOBS={"DATABASE": name}):
        found[name] = {m.id: [m.msg, m.hint] for m in run_checks()}
print(json.dumps(found))
"""


def test_sqlite_without_immediate_transactions_is_warned_of() -> None:
    options = {
        "bare": {},
        "patient": {"timeout": 20},
        "deferred": {"transaction_mode": "DEFERRED"},
        "recommended": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL",
        },
    }
    done = subprocess.run(
        [sys.executable, "-c", HOST, json.dumps(options)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found.pop("recommended") == {}
    for name, messages in found.items():
        message, hint = messages["durable_jobs.W001"]
        assert f"'{name}'" in message
        assert '"transaction_mode": "IMMEDIATE"' in hint
        assert '"timeout": 20' in hint


def test_admin_without_htmx_is_reported(settings: Settings) -> None:
    assert "durable_jobs.I001" not in {message.id for message in run_checks()}
    settings.INSTALLED_APPS = [
        app for app in settings.INSTALLED_APPS if app != "django_htmx"
    ]
    assert "durable_jobs.I001" in {message.id for message in run_checks()}
