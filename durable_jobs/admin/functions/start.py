"""Starting a run by hand, and pausing a function: the pages that ask."""

from __future__ import annotations

from functools import partial
from typing import Any

from django import forms
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from durable_jobs.admin.confirmation import (
    INVALID_STATUS,
    Confirmation,
    IdempotentForm,
    confirm,
    submit,
)
from durable_jobs.admin.forms import Reason, read
from durable_jobs.admin.links import Links
from durable_jobs.admin.pages import actor, address, page
from durable_jobs.admin.typed_json import PayloadText, typed_by
from durable_jobs.control import authorized_actions, send
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.names import MAX_LENGTH
from durable_jobs.definitions.registry import registry
from durable_jobs.definitions.start_options import MAX_PRIORITY
from durable_jobs.durations import parse_duration
from durable_jobs.exceptions import DurableError, PayloadError
from durable_jobs.http_input import read_json
from durable_jobs.lifecycle.schemas import schemas_of_calls
from durable_jobs.models import Run
from durable_jobs.queries import visibility

#: Bytes of a key that a person types, of which the form takes 255 characters.
KEY_BYTES = 4 * MAX_LENGTH

# Starting


class StartForm(IdempotentForm):
    """How a run starts."""

    key = forms.CharField(
        label=gettext_lazy("Key"),
        required=False,
        max_length=MAX_LENGTH,
        help_text=gettext_lazy(
            "With the same key and data, the run that is has_schema is shown instead."
        ),
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )
    delay = forms.CharField(
        label=gettext_lazy("Delay"),
        required=False,
        max_length=64,
        help_text=gettext_lazy("Such as 30s, 5m or 2h; empty is none."),
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )
    priority = forms.IntegerField(
        label=gettext_lazy("Priority"),
        required=False,
        min_value=-MAX_PRIORITY,
        max_value=MAX_PRIORITY,
        help_text=gettext_lazy("Seconds by which it goes ahead of others."),
    )

    def clean_delay(self) -> Any:
        """Return the delay as a length, None for none."""
        text = self.cleaned_data["delay"]
        if not text:
            return None
        try:
            return parse_duration(text, what="delay")
        except DurableError as error:
            raise forms.ValidationError(error.message) from None


class DataForm(forms.Form):
    """What a run is data_form, as JSON."""

    input = PayloadText(
        label=gettext_lazy("Data"),
        required=False,
        help_text=gettext_lazy("A JSON object. Empty is {}."),
    )


def start_view(admin: Any, request: HttpRequest, key: str) -> HttpResponse:
    """Ask for what a run is data_form, and on POST start it and show it."""
    function = _function(admin, request, key, send.START)
    schema = schema_of(function) if "as" not in request.GET else None
    data_form, options = _forms(admin, request, schema)
    valid = [data_form.is_valid(), options.is_valid()]  # each is to say what it misses
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
    """Return the model that types what a function is data_form, None without any."""
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
        actor(request),
        function,
        read(data_form) if schema is not None else data_form.cleaned_data["input"],
        token=chosen["token"],
        key=chosen["key"],
        run_after=chosen["delay"],
        priority=chosen["priority"] or 0,
    )
    if not visibility.sees(started.run):
        return _hidden_run_message(started.new), address(admin.admin_site, "functions")
    place = Links(admin.admin_site, request).page(Run, started.run.pk) or ""
    if started.new:
        return _("The run was started."), place
    return _("Nothing was started: this is the run that has the key."), place


def _hidden_run_message(new: bool) -> str:
    """Return what to tell of a run that the viewer may not see."""
    if new:
        return _("The run was started. You may not see it.")
    return _("Nothing was started: a run that you may not see has the key.")


# Pausing


class PauseForm(Reason):
    """Whether what comes is kept."""

    skip = forms.BooleanField(
        label=gettext_lazy("Skip what comes meanwhile"),
        required=False,
        help_text=gettext_lazy("Else it is kept, and starts when it is resumed."),
    )
    field_order = ("key", "skip", "reason")


class PauseKeyForm(PauseForm):
    """Which key alone."""

    key = forms.CharField(
        label=gettext_lazy("Only the key"),
        required=False,
        max_length=MAX_LENGTH,
        help_text=gettext_lazy(
            "A value of the function's flow control: a text, or JSON such as 7 or "
            "null. Empty pauses the whole function."
        ),
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )


def pause_view(admin: Any, request: HttpRequest, key: str) -> HttpResponse:
    """Ask whether to pause a function, and on POST do it."""
    function = _function(admin, request, key, authorized_actions.PAUSE_FUNCTION)
    back = address(admin.admin_site, "function", quote(function.id))

    def perform(form: Any) -> tuple[Any, str]:
        chosen = form.cleaned_data
        values = {"skip": chosen["skip"], "reason": chosen["reason"]}
        if chosen.get("key"):
            values["key"] = _key(chosen["key"])
        if authorized_actions.pause_function(actor(request), function, **values):
            return _("It is paused: runs that have begun go on."), back
        return _("It was paused already, and has the new reason."), back

    confirmation = Confirmation(
        title=_("Pause: %(function)s") % {"function": function.name},
        action_label=_("Pause"),
        text=_("No run of it begins until it is resumed."),
        form=PauseKeyForm if _keyed(function) else PauseForm,
        back=back,
        back_label=function.name,
        current="functions",
        perform=perform,
        danger=True,
    )
    return confirm(admin.admin_site, request, confirmation)


def _keyed(function: Function) -> bool:
    controls = function.flow_control
    rules = [*controls.concurrency, controls.throttle, controls.singleton]
    return controls.ordering is not None or any(one and one.key for one in rules)


def _key(text: str) -> Any:
    """Return the key that a text stands for: JSON where it is that, else itself."""
    try:
        return read_json(text.encode(errors="replace"), what="the key", most=KEY_BYTES)
    except PayloadError:
        return text


def _function(admin: Any, request: HttpRequest, key: str, permission: str) -> Function:
    if not admin.has_view_permission(request) or not actor(request).may(permission):
        raise PermissionDenied
    function = registry.find(unquote(key))
    if function is None:
        raise Http404
    return function
