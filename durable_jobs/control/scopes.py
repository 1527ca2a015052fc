"""The scopes of API keys, and the permissions that each scope covers."""

from __future__ import annotations

#: The scopes with their permissions, which the owner of the key needs as well.
SCOPES: dict[str, frozenset[str]] = {
    "events:send": frozenset({"send_event"}),
    "signals:send": frozenset({"send_signal"}),
    "runs:read": frozenset({"view_run"}),
    "payloads:read": frozenset({"view_payload"}),
    "runs:start": frozenset({"start_run"}),
    "runs:write": frozenset(
        {
            "answer_run",
            "cancel_run",
            "edit_run",
            "pause_run",
            "redrive_run",
            "rerun_run",
            "resume_run",
            "retry_run",
            "wake_run",
        }
    ),
    # Each approval names its own permission, which the owner needs.
    "approvals:decide": frozenset(),
    "schedules:read": frozenset({"view_schedule"}),
    "schedules:write": frozenset({"pause_schedule", "run_schedule"}),
    "metrics:read": frozenset({"view_worker"}),
}

#: The scope of each permission. Keys cannot use a permission without a scope.
_SCOPE_OF = {
    f"durable_jobs.{permission}": scope
    for scope, permissions in SCOPES.items()
    for permission in permissions
}


def scope_of(permission: str) -> str | None:
    """Return the scope that covers a permission, or None."""
    return _SCOPE_OF.get(permission)
