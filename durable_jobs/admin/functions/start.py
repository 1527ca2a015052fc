"""The page that starts a run by hand."""

from __future__ import annotations

from functools import partial
from typing import Any

from django import forms
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from durable_jobs.admin.confirmation import (
    INVALID_STATUS,
    IdempotentForm,
    submit,
)
from durable_jobs.admin.forms import read
from durable_jobs.admin.links import Links
from durable_jobs.admin.pages import actor_of, address, page
from durable_jobs.admin.typed_json import PayloadText, typed_by
from durable_jobs.control import send
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.names import MAX_LENGTH
from durable_jobs.definitions.registry import registry
from durable_jobs.definitions.start_options import MAX_PRIORITY
from durable_jobs.durations import parse_duration
from durable_jobs.exceptions import DurableError
from durable_jobs.lifecycle.schemas import schemas_of_calls
from durable_jobs.models import Run
from durable_jobs.queries import visibility


class StartForm(IdempotentForm):
    """The key, delay and priority of a new run."""

    key = forms.CharField(
        label=gettext_lazy("Key"),
        required=False,
        max_length=MAX_LENGTH,
        help_text=gettext_lazy(
            "If a run has this key and the same data, that run is shown instead."
        ),
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )
    delay = forms.CharField(
        label=gettext_lazy("Delay"),
        required=False,
        max_length=64,
        help_text=gettext_lazy("For example 30s, 5m or 2h. Empty: no delay."),
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )
    priority = forms.IntegerField(
        label=gettext_lazy("Priority"),
        required=False,
        min_value=-MAX_PRIORITY,
        max_value=MAX_PRIORITY,
        help_text=gettext_lazy(
            "The run is ordered as if queued this many seconds earlier."
        ),
    )

    def clean_delay(self) -> Any:
        """Return the delay as a duration, or None if it is empty."""
        text = self.cleaned_data["delay"]
        if not text:
            return None
        try:
            return parse_duration(text, what="delay")
        except DurableError as error:
            raise forms.ValidationError(error.message) from None


class DataForm(forms.Form):
    """The data of a new run, as JSON."""

    input = PayloadText(
        label=gettext_lazy("Data"),
        required=False,
        help_text=gettext_lazy("A JSON object. Empty is {}."),
    )


def start_view(admin: Any, request: HttpRequest, key: str) -> HttpResponse:
    """Show the form. On POST start the run and show it."""
    function = permitted_function(admin, request, key, send.START)
    schema = schema_of(function) if "as" not in request.GET else None
    data_form, options = _forms(admin, request, schema)
    valid = [
        data_form.is_valid(),
        options.is_valid(),
    ]  # validate both, so that both show their errors
    here = address(admin.admin_site, "function_start", key)
    if all(valid):
        perform = partial(_start, admin, request, function, schema, data_form)
        done = submit(request, options, perform, here)
        if done is not None:
            return done
    has_schema = schema_of(function) is not None
    return page(
        admin.admin_site,
        request,
        "function_start.html",
        title=_("Start a run: %(function)s") % {"function": function.name},
        current="functions",
        status=INVALID_STATUS if options.is_bound else 200,
        name=function.name,
        back=address(admin.admin_site, "function", key),
        forms=[data_form, options],
        fields=schema is not None,
        other=(here if schema is None else f"{here}?as=json") if has_schema else None,
    )


def schema_of(function: Function) -> Any:
    """Return the schema of a function's data, or None without one."""
    triggers = [getattr(trigger, "schema", None) for trigger in function.triggers]
    known = [*schemas_of_calls(function), *triggers]
    return next((schema for schema in known if schema is not None), None)


def _forms(
    admin: Any, request: HttpRequest, schema: Any
) -> tuple[forms.Form, StartForm]:
    posted = request.POST if request.method == "POST" else None
    options = StartForm(posted)
    if schema is None:
        data_form = DataForm(posted, initial={"input": "{}"}, label_suffix="")
        return typed_by(data_form, Links(admin.admin_site, request)), options
    from durable_jobs.admin.forms import form_for

    return form_for(schema)(posted, prefix="data", label_suffix=""), options


def _start(
    admin: Any,
    request: HttpRequest,
    function: Function,
    schema: Any,
    data_form: Any,
    options: Any,
) -> tuple[Any, str]:
    chosen = options.cleaned_data
    started = send.start(
        actor_of(request),
        function,
        read(data_form) if schema is not None else data_form.cleaned_data["input"],
        token=chosen["token"],
        key=chosen["key"],
        run_after=chosen["delay"],
        priority=chosen["priority"] or 0,
    )
    if not visibility.sees(started.run):
        return _hidden_run_message(started.new), address(admin.admin_site, "functions")
    url = Links(admin.admin_site, request).page(Run, started.run.pk) or ""
    if started.new:
        return _("The run was started."), url
    return _("No run was started. This run has the key."), url


def _hidden_run_message(new: bool) -> str:
    """Return the message for a run that the viewer may not see."""
    if new:
        return _("The run was started, but you may not see it.")
    return _("No run was started. A run that you may not see has the key.")


def permitted_function(
    admin: Any, request: HttpRequest, key: str, permission: str
) -> Function:
    """Return a declared function; raise without the permission."""
    if not admin.has_view_permission(request) or not actor_of(request).may(permission):
        raise PermissionDenied
    function = registry.find(unquote(key))
    if function is None:
        raise Http404
    return function
