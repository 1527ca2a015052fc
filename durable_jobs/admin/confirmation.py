"""Confirmation pages: a GET shows a form, a POST performs the action."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.functional import Promise

from durable_jobs import ids
from durable_jobs.admin.forms import Reason
from durable_jobs.admin.pages import page
from durable_jobs.exceptions import ActionNotAllowed, DurableError

#: The HTTP status of a page with an invalid form.
INVALID_STATUS = 422


class IdempotentForm(forms.Form):
    """A form with a token, so that submitting it twice acts once."""

    token = forms.CharField(widget=forms.HiddenInput, max_length=36)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("label_suffix", "")
        super().__init__(*args, **kwargs)
        self.fields["token"].initial = str(ids.new_id())


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """The texts and the effect of a confirmation page.

    ``perform`` gets the valid form and returns a success message and the next URL.
    ``ActionNotAllowed`` becomes a warning. Any other ``DurableError`` is shown in
    the form.
    """

    title: Any
    action_label: str | Promise
    back: str
    back_label: Any
    current: str
    perform: Callable[[Any], tuple[Any, str]]
    form: Callable[..., forms.Form] = Reason
    text: Any = ""
    stale: Any = ""
    danger: bool = False


def confirm(
    site: Any, request: HttpRequest, confirmation: Confirmation
) -> HttpResponse:
    """Show the page. On POST perform the action, add a message and redirect."""
    form = confirmation.form(request.POST if request.method == "POST" else None)
    if form.is_valid():
        done = submit(request, form, confirmation.perform, confirmation.back)
        if done is not None:
            return done
    return page(
        site,
        request,
        "confirm.html",
        title=confirmation.title,
        current=confirmation.current,
        status=INVALID_STATUS if form.is_bound else 200,
        confirmation=confirmation,
        form=form,
    )


def submit(
    request: HttpRequest,
    form: forms.Form,
    perform: Callable[[Any], tuple[Any, str]],
    back: str,
) -> HttpResponse | None:
    """Perform the action of a valid form. Return None if the form is shown again."""
    try:
        message, url = perform(form)
    except ActionNotAllowed as error:
        messages.warning(request, error.message)
        return HttpResponseRedirect(back)
    except DurableError as error:
        form.add_error(None, error.message)
        return None
    messages.success(request, message)
    return HttpResponseRedirect(url)
