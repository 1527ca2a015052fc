"""The composition root: puts the rooms together when Django is ready."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING

from django.apps import AppConfig, apps
from django.core import checks
from django.db.models.signals import post_save, pre_save
from django.utils.module_loading import module_has_submodule
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from durable_jobs.dispatch import Dispatcher

logger = logging.getLogger("durable_jobs")


class DurableJobsConfig(AppConfig):
    """The app ``durable_jobs``."""

    name = "durable_jobs"
    label = "durable_jobs"
    verbose_name = _("Durable jobs")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Install the ports, find the functions, and connect what listens."""
        import os

        from durable_jobs import dispatch, failpoints, logs
        from durable_jobs.conf import settings
        from durable_jobs.control import bulk  # noqa: F401  # declares its function
        from durable_jobs.control.runtime import runtime
        from durable_jobs.definitions import ports
        from durable_jobs.definitions.checks import check_installation
        from durable_jobs.definitions.registry import registry
        from durable_jobs.events import model_changes, model_waits

        logs.guard()
        failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
        ports.install(runtime)
        dispatch.install(_dispatcher(settings.EXECUTOR))
        checks.register(check_installation, checks.Tags.compatibility)
        if settings.EXECUTOR == "celery":
            from durable_jobs.executors.checks import check_celery

            checks.register(check_celery, checks.Tags.compatibility)
        for function in registry:
            model_changes.connect(function)
        registry.on_add = model_changes.connect
        _discover()
        prefix = "durable_jobs"
        pre_save.connect(model_changes.before_save, dispatch_uid=f"{prefix}.before")
        post_save.connect(model_changes.after_save, dispatch_uid=f"{prefix}.after")
        post_save.connect(model_waits.saved, dispatch_uid=f"{prefix}.saved")


def _discover() -> None:
    """Import the ``durable`` module of each app.

    One that fails ends the process: with a part of the functions, it would miss starts.
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


def _dispatcher(name: str) -> Dispatcher:
    if name == "inline":
        from durable_jobs.executors.inline import InlineDispatcher

        return InlineDispatcher()
    from durable_jobs.executors import celery_app
    from durable_jobs.executors.celery_tasks import CeleryDispatcher

    celery_app.connect()
    return CeleryDispatcher()
