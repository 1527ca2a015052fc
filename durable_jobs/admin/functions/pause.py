"""The page that pauses a function, or one key of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from django import forms
from django.contrib.admin.utils import quote
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from durable_jobs.admin.confirmation import Confirmation, confirm
from durable_jobs.admin.forms import Reason
from durable_jobs.admin.functions.start import permitted_function
from durable_jobs.admin.pages import actor_of, address
from durable_jobs.control import authorized_actions
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.names import MAX_LENGTH
from durable_jobs.exceptions import ExpressionError, PayloadError
from durable_jobs.http_input import read_json
from durable_jobs.queries.live_keys import LiveKeys, live_keys

#: Bytes of a typed key. The form accepts 255 characters.
KEY_BYTES = 4 * MAX_LENGTH
#: Live keys that the form suggests.
MAX_SUGGESTED = 200


class PauseForm(Reason):
    """Whether new runs are skipped while the function is paused."""

    skip = forms.BooleanField(
        label=gettext_lazy("Skip new runs while paused"),
        required=False,
        help_text=gettext_lazy(
            "Otherwise new runs are queued and start when you resume."
        ),
    )
    field_order = ("key", "skip", "reason")


class SuggestingInput(forms.TextInput):
    """A text input that suggests values."""

    suggestions: Sequence[str] = ()

    def render(
        self, name: str, value: Any, attrs: Any = None, renderer: Any = None
    ) -> Any:
        place = f"durable-{name}-values"
        if self.suggestions:
            attrs = {**(attrs or {}), "list": place}
        shown = super().render(name, value, attrs, renderer)
        if not self.suggestions:
            return shown
        options = format_html_join(
            "", '<option value="{}">', ((one,) for one in self.suggestions)
        )
        return format_html('{}<datalist id="{}">{}</datalist>', shown, place, options)


class PauseKeyForm(PauseForm):
    """Which key is paused; empty pauses the whole function."""

    key = forms.CharField(
        label=gettext_lazy("Key"),
        required=False,
        max_length=MAX_LENGTH,
        help_text=gettext_lazy(
            "A key value of the function's flow control, as text or as JSON (7, "
            "null). Empty pauses the whole function."
        ),
        widget=SuggestingInput(attrs={"class": "vTextField"}),
    )
    #: The unknown key that the user was warned of.
    confirmed = forms.CharField(
        required=False, max_length=MAX_LENGTH, widget=forms.HiddenInput
    )

    def __init__(self, *args: Any, live: LiveKeys | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._live = live
        if live is not None:
            widget = self.fields["key"].widget
            widget.suggestions = [_typed(one) for one in live.values[:MAX_SUGGESTED]]

    def clean(self) -> dict[str, Any]:
        """Refuse a key that no run has, until it is submitted a second time."""
        cleaned = super().clean() or self.cleaned_data
        key = cleaned.get("key")
        if key and key != cleaned.get("confirmed") and self._is_unknown(key):
            self.data = {**dict(self.data.items()), "confirmed": key}
            self.add_error("key", _("No run has this key now. Pause it anyway?"))
        return cleaned

    def _is_unknown(self, key: str) -> bool:
        try:
            return self._live is not None and self._live.misses(_key(key))
        except ExpressionError:
            return False  # the action reports an invalid key


def pause_view(admin: Any, request: HttpRequest, key: str) -> HttpResponse:
    """Confirm that a function is to be paused. On POST pause it."""
    permission = authorized_actions.PAUSE_FUNCTION
    function = permitted_function(admin, request, key, permission)
    back = address(admin.admin_site, "function", quote(function.id))

    def perform(form: Any) -> tuple[Any, str]:
        chosen = form.cleaned_data
        values = {"skip": chosen["skip"], "reason": chosen["reason"]}
        if chosen.get("key"):
            values["key"] = _key(chosen["key"])
        if authorized_actions.pause_function(actor_of(request), function, **values):
            return _("Paused. Runs in progress continue."), back
        return _("Already paused; the reason was updated."), back

    confirmation = Confirmation(
        title=_("Pause: %(function)s") % {"function": function.name},
        action_label=_("Pause"),
        text=_("New runs wait until you resume."),
        form=_form(admin, request, function),
        back=back,
        back_label=function.name,
        current="functions",
        perform=perform,
        danger=True,
    )
    return confirm(admin.admin_site, request, confirmation)


def _form(admin: Any, request: HttpRequest, function: Function) -> Any:
    """Return the form. Only users who may see payloads learn which keys are live."""
    if not _keyed(function):
        return PauseForm
    live = live_keys(function) if admin.may_view_payloads(request) else None
    return partial(PauseKeyForm, live=live)


def _keyed(function: Function) -> bool:
    controls = function.flow_control
    rules = [*controls.concurrency, controls.throttle, controls.singleton]
    return controls.ordering is not None or any(one and one.key for one in rules)


def _key(text: str) -> Any:
    """Return the value of a typed key: parsed as JSON if valid, else the string."""
    try:
        return read_json(text.encode(errors="replace"), what="the key", most=KEY_BYTES)
    except PayloadError:
        return text


def _typed(value: Any) -> str:
    """Return a key as ``_key`` reads it."""
    if isinstance(value, str) and _key(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)
