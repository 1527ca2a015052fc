"""The composition root: connects the packages when Django is ready."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db.models.signals import post_migrate, post_save, pre_save
from django.utils.module_loading import module_has_submodule
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from durable_jobs.notifier import Notifier

logger = logging.getLogger("durable_jobs")


class DurableJobsConfig(AppConfig):
    """The app ``durable_jobs``."""

    name = "durable_jobs"
    label = "durable_jobs"
    verbose_name = _("Durable jobs")
    default_auto_field = "django.db.models.BigAutoField"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _check_driver()

    def ready(self) -> None:
        """Install the runtime and notifier, import functions, and connect signals."""
        import os

        from durable_jobs import failpoints, logs, notifier
        from durable_jobs.conf import settings as conf
        from durable_jobs.control import bulk  # noqa: F401  # declares its function
        from durable_jobs.control.runtime import runtime
        from durable_jobs.definitions import runtime as runtime_module
        from durable_jobs.definitions.checks import check_installation
        from durable_jobs.definitions.registry import registry
        from durable_jobs.events import model_changes, model_waits
        from durable_jobs.store import installation

        logs.guard()
        failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
        runtime_module.install(runtime)
        notifier.install(_notifier(conf.EXECUTOR))
        checks.register(check_installation, checks.Tags.compatibility)
        if conf.EXECUTOR == "celery":
            from durable_jobs.worker.system_checks import check_celery

            checks.register(check_celery, checks.Tags.compatibility)
        for function in registry:
            model_changes.connect(function)
        registry.on_add = model_changes.connect
        _discover()
        prefix = "durable_jobs"
        post_migrate.connect(
            installation.ensure, sender=self, dispatch_uid=f"{prefix}.installation"
        )
        pre_save.connect(model_changes.before_save, dispatch_uid=f"{prefix}.before")
        post_save.connect(model_changes.after_save, dispatch_uid=f"{prefix}.after")
        post_save.connect(model_waits.saved, dispatch_uid=f"{prefix}.saved")


def _check_driver() -> None:
    """Raise if ``psycopg`` has no client library, since Django's error hides that."""
    engines = {database.get("ENGINE") for database in settings.DATABASES.values()}
    if "django.db.backends.postgresql" not in engines:
        return
    try:
        import psycopg  # noqa: F401  # checks the import
    except ModuleNotFoundError:
        return  # Django reports the missing driver
    except ImportError as error:
        reason = str(error).strip().splitlines()[0]
        msg = (
            f"psycopg cannot be imported ({reason}). Expected the client library of "
            "PostgreSQL (libpq): install psycopg[binary], or libpq by the package "
            "manager of your system."
        )
        raise ImproperlyConfigured(msg) from error


def _discover() -> None:
    """Import the ``durable`` module of each app.

    If an import fails, the process exits: without some functions, runs would not start.
    """
    for app in apps.get_app_configs():
        try:
            import_module(f"{app.name}.durable")
        except Exception:
            if module_has_submodule(app.module, "durable"):
                logger.error(
                    "The durable functions of app %r could not be imported, so this "
                    "process does not start.",
                    app.label,
                    exc_info=True,
                )
                raise


def _notifier(name: str) -> Notifier:
    if name == "inline":
        from durable_jobs.worker.inline import InlineNotifier

        return InlineNotifier()
    from durable_jobs.worker import (
        celery_app,
        celery_tasks,  # noqa: F401  # registers the tasks
        celery_worker,  # noqa: F401  # connects the receivers
    )
    from durable_jobs.worker.celery_notifier import CeleryNotifier

    celery_app.connect()
    return CeleryNotifier()
