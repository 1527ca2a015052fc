"""Actions on a run: a page with a form, and the POST that performs the action."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.functional import Promise
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from durable_jobs import ids
from durable_jobs.admin.confirmation import INVALID_STATUS
from durable_jobs.admin.display import badge, short
from durable_jobs.admin.forms import JSONText, Reason
from durable_jobs.admin.links import Links
from durable_jobs.admin.pages import actor_of, address, page
from durable_jobs.admin.typed_json import PayloadText, typed_by
from durable_jobs.control import run_actions
from durable_jobs.exceptions import DurableError, PayloadError
from durable_jobs.models import Run, Step
from durable_jobs.statuses import STEP_ENDED
from durable_jobs.store import db
from durable_jobs.store.run_changes import stored_data

#: Steps that the rerun form lists.
MAX_STEPS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Button:
    """A button that leads to the page of an action."""

    name: str
    label: str | Promise
    url: str


class ActionForm(Reason):
    """The form of every action: a reason."""

    def __init__(self, *args: Any, run: Run, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.run = run

    def values(self) -> dict[str, Any]:
        """Return the arguments of the action other than the reason."""
        return {}


class RerunForm(ActionForm):
    """The step to start from, and the id of the new run.

    The id makes a second submit of the same form start nothing.
    """

    from_step = forms.ChoiceField(
        label=gettext_lazy("Start from step"),
        required=False,
        help_text=gettext_lazy(
            "Results of earlier steps are copied; those steps do not run again."
        ),
    )
    new = forms.UUIDField(widget=forms.HiddenInput, initial=ids.new_id)
    field_order = ("from_step", "input", "reason", "new")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field: Any = self.fields["from_step"]
        field.choices = [("", _("Start of the run")), *_step_choices(self.run)]

    def values(self) -> dict[str, Any]:
        chosen = self.cleaned_data
        return {"from_step": chosen["from_step"] or None, "new": chosen["new"]}


class EditForm(RerunForm):
    """A rerun with other data."""

    input = PayloadText(label=gettext_lazy("Data"), required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.is_bound:
            text = stored_data(self.run.pk)
            self.initial["input"] = json.dumps(
                json.loads(text), indent=2, ensure_ascii=False
            )

    def clean_input(self) -> Any:
        """Return the data, or an empty object."""
        return self.cleaned_data["input"] or {}

    def values(self) -> dict[str, Any]:
        return super().values() | {"data": self.cleaned_data["input"]}


class AnswerForm(ActionForm):
    """The step to answer, and its result."""

    step = forms.CharField(widget=forms.HiddenInput, max_length=40)
    value = JSONText(
        label=gettext_lazy("Value"),
        required=False,
        help_text=gettext_lazy("JSON: the step's result, or the data of the event"),
    )
    field_order = ("value", "reason", "step")

    def values(self) -> dict[str, Any]:
        return {key: self.cleaned_data[key] for key in ("step", "value")}


FORMS: dict[str, type[ActionForm]] = {
    "rerun": RerunForm,
    "edit": EditForm,
    "answer": AnswerForm,
}
#: Actions above a run's page. The others belong to its waits.
RUN_PAGE_ACTIONS = (
    "redrive",
    "rerun",
    "edit",
    "resume",
    "pause",
    "retry",
    "wake",
    "cancel",
)


def buttons(admin: Any, request: HttpRequest, run: Run) -> list[Button]:
    """Return buttons for the actions that apply and that the viewer may use."""
    actor = actor_of(request)
    waiting = set(run.waits.values_list("kind", flat=True)) if run.is_live else set()
    return [
        Button(
            name=action,
            label=run_actions.ACTIONS[action].label,
            url=url_of(admin, run, action),
        )
        for action in RUN_PAGE_ACTIONS
        if run_actions.applies(action, run)
        and run_actions.may(actor, action, run)
        and run_actions.worthwhile(action, run, waiting)
    ]


def url_of(admin: Any, run: Run, action: str) -> str:
    """Return the URL of an action's page."""
    return address(admin.admin_site, "run_act", run.pk, action)


def view(admin: Any, request: HttpRequest, pk: str, action: str) -> HttpResponse:
    """Show the form. On POST act, then show the run or the new run."""
    run = admin.get_object(request, str(pk))
    if action not in run_actions.ACTIONS:
        raise Http404
    if not admin.has_view_permission(request, run):
        raise PermissionDenied
    if not run_actions.may(actor_of(request), action, run):
        raise PermissionDenied
    if action == "edit" and not admin.may_view_payloads(request, run):
        raise PermissionDenied
    kind = FORMS.get(action, ActionForm)
    if request.method == "POST":
        form = kind(request.POST, run=run)
        typed_by(form, Links(admin.admin_site, request))
        if form.is_valid():
            done = _do(admin, request, run, action, form)
            if done is not None:
                return done
    else:
        given = {name: request.GET.get(name, "") for name in ("step", "from_step")}
        form = kind(run=run, initial=given)
    return page(
        admin.admin_site,
        request,
        "run_action.html",
        title=_("%(action)s: %(function)s")
        % {"action": run_actions.ACTIONS[action].label, "function": run.function},
        current="run_changelist",
        run=run,
        run_url=Links(admin.admin_site, request).page(Run, run.pk),
        short=short(run.pk),
        badge=badge(run),
        action=run_actions.ACTIONS[action],
        form=form,
        answered_step=_step(run, form),
        stale=not run_actions.applies(action, run),
        status=INVALID_STATUS if form.is_bound else 200,
    )


def _do(
    admin: Any, request: HttpRequest, run: Run, action: str, form: ActionForm
) -> HttpResponse | None:
    """Perform the action. Return None if the form has errors to show."""
    links = Links(admin.admin_site, request)
    back = links.page(Run, run.pk) or ""
    reason = form.cleaned_data["reason"]
    try:
        done = run_actions.act(
            actor_of(request), action, run, reason=reason, **form.values()
        )
    except PayloadError as error:
        form.add_error(None, error.message)
        return None
    except DurableError as error:
        messages.warning(request, error.message)
        return HttpResponseRedirect(back)
    if done.run is not None:
        back = links.page(Run, done.run.pk) or back
    what = format_html(
        _("The run {} was {}."), links.anchor(links.page(Run, run.pk), run),
        run_actions.ACTIONS[action].done,
    )  # fmt: skip
    messages.success(request, what)
    return HttpResponseRedirect(back)


def _step_choices(run: Run) -> Iterable[tuple[str, str]]:
    """Yield the top-level steps by key, in recorded order."""
    rows = db.rows(Step).filter(run_id=run.pk, parent__isnull=True)
    named = rows.order_by("position", "pk").values_list("key", "name", "kind", "status")
    for key, name, kind, status in named[:MAX_STEPS]:
        mark = "" if status in STEP_ENDED else f", {status}"
        yield key, f"{name} ({kind.replace('_', ' ')}{mark})"


def _step(run: Run, form: ActionForm) -> Step | None:
    key = form["step"].value() if "step" in form.fields else None
    rows = db.rows(Step).filter(run_id=run.pk, key=str(key or ""))
    return rows.only("name", "kind", "status").first()
