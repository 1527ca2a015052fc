"""Functions whose code is an app of its own, in any language, called over HTTP.

The app serves them with one of Inngest's SDKs; here are their triggers, flow control,
steps and runs. ``remote.App`` is the door. Needs the extra ``durable-jobs[remote]``.
"""

from __future__ import annotations

from durable_jobs.remote.apps import App

__all__ = ["App"]
