"""A page that asks before something is done, and the POST that does it."""

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

#: The status of a form that has to be filled in again.
INVALID_STATUS = 422


class IdempotentForm(forms.Form):
    """A form with an id: what is sent with it is sent once."""

    token = forms.CharField(widget=forms.HiddenInput, max_length=36)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("label_suffix", "")
        super().__init__(*args, **kwargs)
        self.fields["token"].initial = str(ids.new_id())


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """What a page asks.

    ``do`` gets the valid form and returns what to tell, and where to go; what it
    refuses is told as a warning, any other error of ours beside the form.
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
    """Show the page; on POST do it, tell what came of it, and go on."""
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
    """Do what a valid form asks for; None when it has to be filled in again."""
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
