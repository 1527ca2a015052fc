"""What a key may be allowed to do, and the permissions that each of it stands for."""

from __future__ import annotations

#: The scopes, with the permissions that their owner needs as well.
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
    # Each approval names a permission of its own, which the owner needs.
    "approvals:decide": frozenset(),
    "schedules:read": frozenset({"view_schedule"}),
    "schedules:steer": frozenset({"pause_schedule", "run_schedule"}),
    "metrics:read": frozenset({"view_worker"}),
}

#: The scope that a permission needs; one that has none is nothing for keys.
_SCOPE_OF = {
    f"durable_jobs.{permission}": scope
    for scope, permissions in SCOPES.items()
    for permission in permissions
}


def scope_of(permission: str) -> str | None:
    """Return the scope that covers a permission, if any does."""
    return _SCOPE_OF.get(permission)
