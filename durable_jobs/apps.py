"""The composition root: puts the rooms together when Django is ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import AppConfig
from django.core import checks
from django.db.models.signals import post_save, pre_save
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from durable_jobs.dispatch import Dispatcher


class DurableJobsConfig(AppConfig):
    """The app ``durable_jobs``."""

    name = "durable_jobs"
    label = "durable_jobs"
    verbose_name = _("Durable jobs")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Install the ports, find the functions, and connect what listens."""
        import os

        from durable_jobs import dispatch, failpoints
        from durable_jobs.conf import settings
        from durable_jobs.control import bulk  # noqa: F401  # declares its function
        from durable_jobs.control.runtime import runtime
        from durable_jobs.definitions import ports
        from durable_jobs.definitions.checks import check_installation
        from durable_jobs.definitions.registry import registry
        from durable_jobs.events import model_changes, model_waits

        failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
        ports.install(runtime)
        dispatch.install(_dispatcher(settings.EXECUTOR))
        checks.register(check_installation, checks.Tags.compatibility)
        if settings.EXECUTOR == "celery":
            from durable_jobs.executors.checks import check_broker

            checks.register(check_broker, checks.Tags.compatibility)
        for function in registry:
            model_changes.connect(function)
        registry.on_add = model_changes.connect
        autodiscover_modules("durable")
        prefix = "durable_jobs"
        pre_save.connect(model_changes.before_save, dispatch_uid=f"{prefix}.before")
        post_save.connect(model_changes.after_save, dispatch_uid=f"{prefix}.after")
        post_save.connect(model_waits.saved, dispatch_uid=f"{prefix}.saved")


def _dispatcher(name: str) -> Dispatcher:
    if name == "inline":
        from durable_jobs.executors.inline import InlineDispatcher

        return InlineDispatcher()
    from celery.app import app_or_default

    from durable_jobs.executors.celery_tasks import CeleryDispatcher, install_beat

    install_beat(app_or_default())
    return CeleryDispatcher()
