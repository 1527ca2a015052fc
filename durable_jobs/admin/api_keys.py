"""Admin pages of API keys: list, create and revoke.

The text of a new key is shown once, after it was created.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from durable_jobs import clock
from durable_jobs.admin.base import ReadOnlyAdmin
from durable_jobs.admin.display import moment, relative_time
from durable_jobs.admin.forms import moment_field
from durable_jobs.admin.pages import actor_of, page
from durable_jobs.control import api_keys
from durable_jobs.control.scopes import SCOPES
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.models import ApiKey
from durable_jobs.project_code import description_of, descriptions_of

_STATES = {
    api_keys.ACTIVE: _("active"),
    api_keys.EXPIRED: _("expired"),
    api_keys.REVOKED: _("revoked"),
}


DELETED_OWNER = _("deleted user")
#: Owners whose names a list reads.
MAX_OWNERS = 1000


class KeyForm(forms.Form):
    """The name, scopes and expiry of a new key."""

    name = forms.CharField(label=_("name"), max_length=100)
    scopes = forms.MultipleChoiceField(
        label=_("scopes"),
        choices=[(scope, scope) for scope in SCOPES],
        widget=forms.CheckboxSelectMultiple,
        help_text=_("You can only grant scopes that you have."),
    )
    events = forms.CharField(
        label=_("events"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("Allowed event prefixes, one per line. Empty allows all."),
    )
    expires_at = moment_field(label=_("expires"), required=False)

    def clean_events(self) -> list[str]:
        """Return the lines that are not blank."""
        lines = self.cleaned_data["events"].splitlines()
        return [line.strip() for line in lines if line.strip()]


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    """API keys, newest first. Keys are created and revoked, never changed."""

    summary_fields = (
        "name", "prefix", "scopes_display", "events_display", "owner_display", "state",
        "created", "expires", "used", "revoked",
    )  # fmt: skip
    ordering = ("-id",)
    actions: Any = ("revoke",)

    def get_list_display(self, request: HttpRequest) -> Any:
        """Return the columns. One query reads the owners of all rows."""
        names: dict[str, str] = {}

        @admin.display(description=_("acts as"))
        def owner(key: ApiKey) -> Any:
            if not names:
                names.update(_names(self.get_queryset(request)))
            return names.get(key.owner, DELETED_OWNER)

        return ["name", "prefix", "scopes_display", owner, "state", "used"]

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may create keys, which act as that user."""
        return actor_of(request).may("durable_jobs.add_apikey")

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may revoke keys."""
        return actor_of(request).may("durable_jobs.revoke_apikey")

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show the form, create the key, and show its text once."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = KeyForm(request.POST if request.method == "POST" else None)
        created_key = self._create(request, form) if form.is_valid() else None
        response = page(
            self.admin_site,
            request,
            "api_key.html",
            title=_("New API key"),
            form=form,
            created_key=created_key,
        )
        # Caches and the "back" button must not show the key again.
        response["Cache-Control"] = "no-store"
        return response

    def _create(self, request: HttpRequest, form: KeyForm) -> api_keys.NewApiKey | None:
        values = form.cleaned_data
        try:
            return api_keys.create(
                actor_of(request),
                values["name"],
                values["scopes"],
                events=values["events"],
                expires_at=values["expires_at"],
            )
        except ConfigurationError as error:
            form.add_error(None, error.message)
            return None

    @admin.action(description=_("Revoke the selected keys"), permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        """Revoke the selected keys."""
        actor = actor_of(request)
        done = sum(api_keys.revoke(actor, key) for key in queryset.order_by("pk"))
        text = ngettext("%(count)d key revoked.", "%(count)d keys revoked.", done)
        self.message_user(request, text % {"count": done}, messages.SUCCESS)

    @admin.display(description=_("prefix"))
    def prefix(self, key: ApiKey) -> str:
        """Return the first characters of the key's text."""
        return f"{key.prefix}…"

    @admin.display(description=_("scopes"))
    def scopes_display(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @admin.display(description=_("events"))
    def events_display(self, key: ApiKey) -> str:
        """Return the prefixes of event names that the key may send."""
        return ", ".join(key.events)

    @admin.display(description=_("acts as"))
    def owner_display(self, key: ApiKey) -> Any:
        """Return the name of the key's owner."""
        owner = api_keys.owner_of(key)
        return DELETED_OWNER if owner is None else description_of(owner)

    @admin.display(description=_("state"))
    def state(self, key: ApiKey) -> Any:
        return _STATES[api_keys.state(key, clock.now())]

    @admin.display(description=_("last used"))
    def used(self, key: ApiKey) -> Any:
        """Return when the key was last used, to the minute."""
        return relative_time(key.used_at)

    @admin.display(description=_("created"))
    def created(self, key: ApiKey) -> Any:
        return moment(key.created_at)

    @admin.display(description=_("expires"))
    def expires(self, key: ApiKey) -> Any:
        return moment(key.expires_at)

    @admin.display(description=_("revoked at"))
    def revoked(self, key: ApiKey) -> Any:
        return moment(key.revoked_at)


def _names(rows: QuerySet[ApiKey]) -> dict[str, str]:
    """Return the names of the keys' owners by primary key."""
    owners = set(rows.order_by().values_list("owner", flat=True)[:MAX_OWNERS])
    try:
        users = list(get_user_model()._default_manager.filter(pk__in=owners))
    except (ValueError, TypeError):
        return {}  # stored keys of a former user model with another key type
    names = descriptions_of(users)
    return {str(user.pk): name for user, name in zip(users, names, strict=True)}
