"""Approvals from code: ``durable.approvals``.

Use this for pages of your project on which users without admin access decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from durable_jobs.definitions.runtime import runtime

if TYPE_CHECKING:
    from durable_jobs.control.approvals import Approval
    from durable_jobs.models import Run

Decision = Literal["approve", "reject"]


def pending(who: Any = None, *, limit: int = 100) -> list[Approval]:
    """Return the open approvals, oldest first.

    With ``who``, return only those that this user may decide.
    """
    return runtime().pending_approvals(who, limit)


def get(run: Run, step: str) -> Approval | None:
    """Return the approval of a step, by the step's id or key, or None.

    A decided approval is returned too, with ``is_open`` False.
    """
    return runtime().find_approval(run, step)


def decide(
    approval: Approval,
    decision: Decision,
    data: Mapping[str, Any] | None = None,
    *,
    by: Any = None,
    note: str = "",
    check: bool = True,
) -> bool:
    """Decide an approval. Return whether this call did, or another one before it.

    ``data`` fills the form. ``note`` is the reason, which a rejection requires. ``by``
    is the user who decides. With ``check=False``, the permission is not checked and
    ``by`` may be None. Raise ``PermissionDenied`` without the permission, and Django's
    ``ValidationError`` if the data or the note is invalid.
    """
    return runtime().decide_approval(
        approval, decision, data, by=by, note=note, check=check
    )


def approve(
    approval: Approval,
    data: Mapping[str, Any] | None = None,
    *,
    by: Any = None,
    note: str = "",
    check: bool = True,
) -> bool:
    """Approve. Return whether this call decided. See ``decide``."""
    return decide(approval, "approve", data, by=by, note=note, check=check)


def reject(
    approval: Approval, note: str = "", *, by: Any = None, check: bool = True
) -> bool:
    """Reject with a reason. Return whether this call decided. See ``decide``."""
    return decide(approval, "reject", by=by, note=note, check=check)
