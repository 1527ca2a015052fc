"""Endpoints that list and decide approvals.

Each approval names a permission of your project. The user of the session or the owner
of the key needs that permission. A key also needs the scope ``approvals:decide``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest
from ninja import Router, Schema

from durable_jobs.api.auth import actor_of, address_part, authenticators
from durable_jobs.api.problems import Problem, responses
from durable_jobs.api.schemas import In, Reason
from durable_jobs.control import approvals
from durable_jobs.control.actor import Actor
from durable_jobs.control.approvals import Approval
from durable_jobs.queries import run_rows

router = Router(tags=["approvals"])

SCOPE = "approvals:decide"
MOST = 100


class ApprovalOut(Schema):
    """An approval. ``verdict`` says how it was decided."""

    id: UUID
    run: UUID
    function: str
    step: str
    title: str
    permission: str
    since: datetime | None
    until: datetime | None
    open: bool
    verdict: str


class ApprovalsOut(Schema):
    """The oldest approvals that the requester may decide."""

    approvals: list[ApprovalOut]


class DecideIn(In):
    """A decision with data for the form and a note. A rejection requires the note."""

    decision: Literal["approve", "reject"]
    data: dict[str, Any] | None = None
    note: Reason = ""


def _may_decide(request: HttpRequest, actor: Actor) -> None:
    if actor.scopes is not None and SCOPE not in actor.scopes:
        msg = f"The key lacks the scope {SCOPE}."
        raise PermissionDenied(msg)


def _may_decide_one(request: HttpRequest, actor: Actor) -> None:
    _may_decide(request, actor)
    _find(UUID(address_part(request, "approval_id")), actor)


@router.get(
    "/approvals",
    auth=authenticators(_may_decide),
    response=responses({200: ApprovalsOut}),
)
def list_approvals(request: HttpRequest) -> Any:
    """List the approvals that you may decide, oldest first."""
    found = approvals.pending_of(_as_user(actor_of(request)), MOST)
    return {"approvals": [_present(one) for one in found]}


@router.post(
    "/approvals/{uuid:approval_id}/decide",
    auth=authenticators(_may_decide_one),
    response=responses({200: ApprovalOut}, 404, 409, 415),
)
def decide_approval(request: HttpRequest, approval_id: UUID, payload: DecideIn) -> Any:
    """Approve or reject. Returns 409 if the approval is no longer open."""
    actor = actor_of(request)
    approval = _find(approval_id, actor)
    data: Mapping[str, Any] = payload.data or {}
    try:
        approvals.settle(
            _as_user(actor), approval, payload.decision, data, payload.note
        )
    except ValidationError as error:
        rejects = payload.decision == "reject"
        found = [
            {
                "in": "body",
                "at": name if rejects else f"data.{name}",
                "detail": " ".join(messages),
            }
            for name, messages in error.message_dict.items()
        ]
        detail = "Expected data that the form of the approval accepts."
        if rejects:
            detail = "Expected a note with the reason of the rejection."
        raise Problem(422, "invalid", detail, errors=found) from None
    return _present(_find(approval_id, actor))


def _find(approval_id: UUID, actor: Actor) -> Approval:
    """Return an approval. Raise if it is missing or needs another permission."""
    step = run_rows.step_of_any(approval_id, "approve")
    run = None if step is None else run_rows.run(step.run_id)
    found = None if run is None or step is None else approvals.find(run, step.key)
    if found is None:
        raise Http404
    if not _as_user(actor).may(found.permission, found.run):
        msg = f"You lack the permission {found.permission}."
        raise PermissionDenied(msg)
    return found


def _as_user(actor: Actor) -> Actor:
    """Return the owner of a key without its scopes, which name no such permission."""
    return Actor(actor.user, via=actor.via, key=actor.key)


def _present(approval: Approval) -> dict[str, Any]:
    names = ("step", "title", "permission", "since", "until", "verdict")
    return {
        "id": approval.id,
        "run": approval.run.pk,
        "function": approval.run.function,
        "open": approval.is_open,
        **{name: getattr(approval, name) for name in names},
    }
