"""Approvals from code: ``durable.approvals``.

For your project's own page, where people decide who are never in the admin.
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
    """Return the approvals that wait, the oldest first; of a user, those to decide."""
    return runtime().pending_approvals(who, limit)


def get(run: Run, step: str) -> Approval | None:
    """Return what a step of a run asks, by the step's id or key; None if it does not.

    An approval that was decided is returned too: its ``is_open`` is False.
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
    """Decide an approval; return whether this call did it.

    ``data`` is for the form, ``note`` is the reason, which a rejection needs. ``by`` is
    the user who decides. With ``check=False`` the permission is not checked, and ``by``
    may be None. Raise ``PermissionDenied``, and Django's ``ValidationError`` if the
    data or the note is not valid.
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
    """Approve; return whether this call did it. See ``decide``."""
    return decide(approval, "approve", data, by=by, note=note, check=check)


def reject(
    approval: Approval, note: str = "", *, by: Any = None, check: bool = True
) -> bool:
    """Reject with a reason; return whether this call did it. See ``decide``."""
    return decide(approval, "reject", by=by, note=note, check=check)
