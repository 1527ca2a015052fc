"""Durable functions as admin actions of your project: a form page, and the start.

A user can start runs only for visible objects that the user selected. Submitting one
form twice starts each run once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin import options
from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from durable_jobs.admin.confirmation import INVALID_STATUS
from durable_jobs.admin.forms import Reason, SchemaForm, form_for, read
from durable_jobs.admin.links import Links
from durable_jobs.admin.pages import actor_of
from durable_jobs.admin.signed_selection import FIELD, SignedSelection
from durable_jobs.control import admin_actions
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.exceptions import DurableError
from durable_jobs.models import Run
from durable_jobs.project_code import descriptions_of, may_view

#: Objects that the page names. The others are counted.
MAX_NAMED = 20


# Actions


def allowed_functions(admin: Any, request: HttpRequest) -> list[Function]:
    """Return the functions that the user may start for objects of an admin."""
    if not actor_of(request).may(admin_actions.PERMISSION):
        return []
    return _functions_of(admin)


def _functions_of(admin: Any) -> list[Function]:
    model = admin.model
    concrete = model._meta.concrete_model or model
    return registry.in_admin_of(model._meta.label, concrete._meta.label)


def actions(admin: Any, request: HttpRequest, location: Any) -> dict[str, Any]:
    """Return the functions as admin actions, in the format of the installed Django.

    ``location`` is Django's action location, or None before Django 6.1.
    """
    return {
        f"durable:{one.id}": _action(one, location)
        for one in allowed_functions(admin, request)
    }


def _action(function: Function, location: Any) -> Any:
    name = f"durable:{function.id}"
    # The admin formats the label with the model's names.
    label = function.name.replace("%", "%%")
    act = partial(_run_action, function)
    kind = getattr(options, "Action", None)  # since Django 6.1; a tuple before
    if kind is None:
        return act, name, label
    return kind(
        func=act,
        name=name,
        description=label,
        plural_description=label,
        locations=[location],
    )


def url_of(admin: Any, function: Function) -> str:
    """Return the URL of the form page, without the object."""
    return _url(admin, "durable_start", function.id)


def _url(admin: Any, view: str, *args: str) -> str:
    name = f"admin:{admin.opts.app_label}_{admin.opts.model_name}_{view}"
    return reverse(name, args=args, current_app=admin.admin_site.name)


# The pages


def _run_action(
    function: Function, admin: Any, request: HttpRequest, queryset: Any
) -> HttpResponse | None:
    """Show the form for the selected objects. The admin calls it as an action."""
    if not actor_of(request).may(admin_actions.PERMISSION):
        raise PermissionDenied
    keys = list(queryset.values_list("pk", flat=True)[: admin_actions.MOST + 1])
    if len(keys) > admin_actions.MOST:
        text = _("Select at most %(most)s objects. No run was started.")
        messages.error(request, text % {"most": f"{admin_actions.MOST:,}"})
        return None
    selection = SignedSelection.new(keys, request.get_full_path())
    return StartPage(admin, request, function, selection).response()


def view(admin: Any, request: HttpRequest, function_id: str) -> HttpResponse:
    """Show the form for one object. On POST start the runs and redirect back."""
    function = next(
        (one for one in _functions_of(admin) if one.id == function_id), None
    )
    if function is None:
        raise Http404
    if not actor_of(request).may(admin_actions.PERMISSION):
        raise PermissionDenied
    if request.method == "POST":
        selection = SignedSelection.read(request, _purpose(admin, function))
        if selection is None:
            messages.error(request, _("This form has expired. Select again."))
            return HttpResponseRedirect(_url(admin, "changelist"))
        return StartPage(admin, request, function, selection, submitted=True).response()
    one = admin.get_object(request, request.GET.get("pk", ""))
    if one is None:
        raise Http404
    back = _url(admin, "change", quote(str(one.pk)))
    return StartPage(
        admin, request, function, SignedSelection.new([one.pk], back)
    ).response()


def _purpose(admin: Any, function: Function) -> str:
    return f"{admin.admin_site.name}:{admin.opts.label_lower}:{function.id}"


@dataclass(frozen=True)
class StartPage:
    """The form page of one function. ``submitted`` says that the form was sent."""

    admin: Any
    request: HttpRequest
    function: Function
    selection: SignedSelection
    submitted: bool = False

    def response(self) -> HttpResponse:
        """Return the form page, or start the runs and redirect back."""
        if not self.objects:
            messages.warning(self.request, _("The selected objects no longer exist."))
            return HttpResponseRedirect(self.selection.back)
        if (
            self.submitted
            and all(one.is_valid() for one in self.forms)
            and self._start()
        ):
            return HttpResponseRedirect(self.selection.back)
        return self._page()

    @cached_property
    def objects(self) -> list[Model]:
        """Return the selected objects that exist and are visible, in selected order."""
        found = self.admin.get_queryset(self.request).filter(pk__in=self.selection.keys)
        rows = self.links.joined(self.admin.model, found)
        known = {str(row.pk): row for row in rows}
        return [
            known[key]
            for key in self.selection.keys
            if key in known and may_view(self.admin, self.request, known[key])
        ]

    @cached_property
    def input_form(self) -> SchemaForm | None:
        """Return the form of the function's input, or None without an input."""
        if self.function.input is None:
            return None
        data = self.request.POST if self.submitted else None
        return form_for(self.function.input)(data, prefix="input", label_suffix="")

    @cached_property
    def reason_form(self) -> Reason:
        """Return the form for the reason."""
        return Reason(self.request.POST if self.submitted else None, label_suffix="")

    @property
    def forms(self) -> list[forms.Form]:
        """Return the forms in page order."""
        return [one for one in (self.input_form, self.reason_form) if one is not None]

    @cached_property
    def links(self) -> Links:
        return Links(self.admin.admin_site, self.request)

    def _start(self) -> bool:
        """Start the runs. Return False if the form has errors to show."""
        try:
            runs = admin_actions.start(
                actor_of(self.request),
                self.function,
                self.objects,
                {} if self.input_form is None else read(self.input_form),
                token=self.selection.token,
                reason=self.reason_form.cleaned_data["reason"],
            )
        except DurableError as error:
            self.reason_form.add_error(None, error.message)
            return False
        self._show_messages(runs)
        return True

    def _show_messages(self, runs: list[Run]) -> None:
        if runs:
            only = self.links.page(Run, runs[0].pk) if len(runs) == 1 else None
            where = only or self.links.rows(Run, function=self.function.id)
            text = ngettext(
                "Started {count} run of {function}.",
                "Started {count} runs of {function}.",
                len(runs),
            )
            label = self.links.anchor(where, self.function.name)
            done = format_html(text, count=len(runs), function=label)
            messages.success(self.request, done)
        if repeated := len(self.objects) - len(runs):
            text = ngettext(
                "%(count)s object already has a run from this form. No new run was "
                "started.",
                "%(count)s objects already have runs from this form. No new runs "
                "were started.",
                repeated,
            )
            messages.warning(self.request, text % {"count": repeated})
        if missing := len(self.selection.keys) - len(self.objects):
            text = ngettext(
                "%(count)s object no longer exists.",
                "%(count)s objects no longer exist.",
                missing,
            )
            messages.warning(self.request, text % {"count": missing})

    def _page(self) -> HttpResponse:
        admin, links, named = self.admin, self.links, self.objects[:MAX_NAMED]
        self.request.current_app = admin.admin_site.name
        context = {
            **admin.admin_site.each_context(self.request),
            "opts": admin.opts,
            "title": self.function.name,
            # Not the function, which a template would call.
            "description": self.function.description,
            "objects": [
                links.anchor(links.page(type(one), one.pk), name)
                for one, name in zip(named, descriptions_of(named), strict=True)
            ],
            "others": max(len(self.objects) - MAX_NAMED, 0),
            "count": len(self.objects),
            "missing": len(self.selection.keys) - len(self.objects),
            "forms": self.forms,
            "field": FIELD,
            "selection": self.selection.signed(
                self.request, _purpose(admin, self.function)
            ),
            "action": url_of(admin, self.function),
            "back": self.selection.back,
        }
        wrong = any(one.errors for one in self.forms)
        return TemplateResponse(
            self.request,
            "admin/durable_jobs/start_action.html",
            context,
            status=INVALID_STATUS if wrong else 200,
        )
