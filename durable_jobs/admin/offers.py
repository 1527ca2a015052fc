"""Durable functions as actions of a host's admin: a page that asks, and the start.

What was chosen travels in the form, signed: nobody starts anything for what he did not
choose in a list that he may see, and one form starts nothing twice.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin import options
from django.contrib.admin.utils import quote
from django.core import signing
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    QueryDict,
)
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from durable_jobs.admin.forms import SchemaForm, form_for, read
from durable_jobs.admin.links import Links
from durable_jobs.admin.pages import actor
from durable_jobs.control import offering
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.exceptions import DurableError
from durable_jobs.models import Run

SALT = "durable_jobs.admin.offers"
#: Seconds for which a form can be sent.
GOOD_FOR = 12 * 60 * 60
#: Objects that the page names; of the others it tells how many there are.
NAMED = 20
REASON = 500


class Why(forms.Form):
    """What every start asks: why."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        required=False,
        max_length=REASON,
        help_text=gettext_lazy("Kept in the history of each object and of its run."),
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )


@dataclass(frozen=True, slots=True)
class Chosen:
    """What somebody chose: keys of objects, the way back, and a token of the form."""

    keys: Sequence[str]
    back: str
    token: str

    @classmethod
    def new(cls, keys: Sequence[Any], back: str) -> Chosen:
        """Return a choice that no form has been made of."""
        return cls([str(key) for key in keys], back, uuid.uuid4().hex)

    def signed(self, request: HttpRequest, place: str) -> str:
        """Return the choice as a text that only its user can use, and only there."""
        parts = [str(request.user.pk), place, self.keys, self.back, self.token]
        return signing.dumps(parts, salt=SALT, compress=True)

    @classmethod
    def read(cls, request: HttpRequest, place: str) -> Chosen | None:
        """Return the choice that a form holds; None for one that does not count."""
        text = request.POST.get("chosen", "")
        try:
            user, where, keys, back, token = signing.loads(
                text, salt=SALT, max_age=GOOD_FOR
            )
        except (signing.BadSignature, ValueError, TypeError):
            return None
        mine = user == str(request.user.pk) and where == place
        return cls(keys, back, token) if mine else None


def offers(admin: Any, request: HttpRequest) -> list[Function]:
    """Return the functions that the viewer may start for objects of an admin."""
    if not actor(request).may(offering.PERMISSION):
        return []
    return _offered(admin)


def actions(admin: Any, request: HttpRequest, location: Any) -> dict[str, Any]:
    """Return the functions as actions of a list, as the admin of this Django has them.

    ``location`` is what it calls a list, None before it had a name for that.
    """
    return {
        f"durable:{one.id}": _action(one, location) for one in offers(admin, request)
    }


def _action(function: Function, location: Any) -> Any:
    name = f"durable:{function.id}"
    # The admin formats the label with the model's names.
    label = function.name.replace("%", "%%")
    act = partial(_act, function)
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


def _act(
    function: Function, admin: Any, request: HttpRequest, queryset: Any
) -> HttpResponse | None:
    """Ask about what was selected; the admin calls it as any action."""
    return chosen_in_list(admin, request, queryset, function)


def _offered(admin: Any) -> list[Function]:
    model = admin.model
    concrete = model._meta.concrete_model or model
    return registry.offered(model._meta.label, concrete._meta.label)


def url_of(admin: Any, function: Function) -> str:
    """Return the address of the page that asks, without the object."""
    meta = admin.opts
    name = f"admin:{meta.app_label}_{meta.model_name}_durable_start"
    return reverse(name, args=[function.id], current_app=admin.admin_site.name)


def chosen_in_list(
    admin: Any, request: HttpRequest, queryset: Any, function: Function
) -> HttpResponse | None:
    """Ask about what was selected in the list; None when it is too much."""
    if not actor(request).may(offering.PERMISSION):
        raise PermissionDenied
    keys = list(queryset.values_list("pk", flat=True)[: offering.MOST + 1])
    if len(keys) > offering.MOST:
        text = _("Choose at most %(most)s objects at once: nothing was started.")
        messages.error(request, text % {"most": f"{offering.MOST:,}"})
        return None
    return _ask(admin, request, function, Chosen.new(keys, request.get_full_path()))


def view(admin: Any, request: HttpRequest, function_id: str) -> HttpResponse:
    """Ask about one object; on POST start what the form says, and go back."""
    function = next((one for one in _offered(admin) if one.id == function_id), None)
    if function is None:
        raise Http404
    if not actor(request).may(offering.PERMISSION):
        raise PermissionDenied
    if request.method == "POST":
        chosen = Chosen.read(request, _place(admin, function))
        if chosen is None:
            messages.error(request, _("This form is too old. Choose once more."))
            return HttpResponseRedirect(_list_of(admin))
        return _ask(admin, request, function, chosen, request.POST)
    one = admin.get_object(request, request.GET.get("pk", ""))
    if one is None:
        raise Http404
    back = reverse(
        f"admin:{admin.opts.app_label}_{admin.opts.model_name}_change",
        args=[quote(str(one.pk))],
        current_app=admin.admin_site.name,
    )
    return _ask(admin, request, function, Chosen.new([one.pk], back))


def _ask(
    admin: Any,
    request: HttpRequest,
    function: Function,
    chosen: Chosen,
    sent: QueryDict | None = None,
) -> HttpResponse:
    found = _objects(admin, request, chosen)
    if not found:
        messages.warning(request, _("Nothing is left of what was chosen."))
        return HttpResponseRedirect(chosen.back)
    why = Why(sent, label_suffix="")
    kind = form_for(function.input) if function.input else None
    form = kind(sent, prefix="input", label_suffix="") if kind else None
    if sent is not None and all([why.is_valid(), form is None or form.is_valid()]):
        payload = read(form) if form is not None else {}
        reason = why.cleaned_data["reason"]
        done = _start(admin, request, function, chosen, found, payload, reason, why)
        if done is not None:
            return done
    return _page(admin, request, function, chosen, found, form, why)


def _objects(admin: Any, request: HttpRequest, chosen: Chosen) -> list[Model]:
    """Return what is there of what was chosen, and may be seen, in its order."""
    rows = admin.get_queryset(request).filter(pk__in=chosen.keys)
    known = {str(row.pk): row for row in rows}
    return [
        known[key]
        for key in chosen.keys
        if key in known and admin.has_view_permission(request, known[key])
    ]


def _start(
    admin: Any,
    request: HttpRequest,
    function: Function,
    chosen: Chosen,
    found: list[Model],
    payload: dict[str, Any],
    reason: str,
    why: Why,
) -> HttpResponse | None:
    """Start the runs and go back; None when the form has to say why not."""
    try:
        runs = offering.start(
            actor(request),
            function,
            found,
            payload,
            token=chosen.token,
            reason=reason,
        )
    except DurableError as error:
        why.add_error(None, error.message)
        return None
    links = Links(admin.admin_site, request)
    _tell(request, links, function, runs, len(chosen.keys), len(found))
    return HttpResponseRedirect(chosen.back)


def _tell(
    request: HttpRequest,
    links: Links,
    function: Function,
    runs: list[Run],
    wanted: int,
    there: int,
) -> None:
    if runs:
        only = links.page(Run, runs[0].pk) if len(runs) == 1 else None
        where = only or links.rows(Run, function=function.id)
        text = ngettext(
            "Started {count} run of {function}.",
            "Started {count} runs of {function}.",
            len(runs),
        )
        label = links.anchor(where, function.name)
        messages.success(request, format_html(text, count=len(runs), function=label))
    if repeated := there - len(runs):
        text = ngettext(
            "%(count)s object has its run already: nothing was started for it again.",
            "%(count)s objects have their runs already: nothing was started for them "
            "again.",
            repeated,
        )
        messages.warning(request, text % {"count": repeated})
    if gone := wanted - there:
        text = ngettext(
            "%(count)s object is gone.", "%(count)s objects are gone.", gone
        )
        messages.warning(request, text % {"count": gone})


def _page(
    admin: Any,
    request: HttpRequest,
    function: Function,
    chosen: Chosen,
    found: list[Model],
    form: SchemaForm | None,
    why: Why,
) -> HttpResponse:
    links = Links(admin.admin_site, request)
    asked = [one for one in (form, why) if one is not None]
    request.current_app = admin.admin_site.name
    context = {
        **admin.admin_site.each_context(request),
        "opts": admin.opts,
        "title": function.name,
        # Not the function itself, which a template would call.
        "description": function.description,
        "objects": [
            links.anchor(links.page(type(one), one.pk), one) for one in found[:NAMED]
        ],
        "others": max(len(found) - NAMED, 0),
        "count": len(found),
        "gone": len(chosen.keys) - len(found),
        "forms": asked,
        "chosen": chosen.signed(request, _place(admin, function)),
        "action": url_of(admin, function),
        "back": chosen.back,
    }
    wrong = any(one.errors for one in asked)
    return TemplateResponse(
        request,
        "admin/durable_jobs/offer.html",
        context,
        status=422 if wrong else 200,
    )


def _place(admin: Any, function: Function) -> str:
    return f"{admin.admin_site.name}:{admin.opts.label_lower}:{function.id}"


def _list_of(admin: Any) -> str:
    name = f"admin:{admin.opts.app_label}_{admin.opts.model_name}_changelist"
    return reverse(name, current_app=admin.admin_site.name)
