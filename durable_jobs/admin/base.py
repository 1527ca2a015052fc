"""The base class of all model admins: read-only pages with bounded queries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.utils import lookup_field
from django.contrib.auth import get_permission_codename
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import Http404, HttpRequest
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from durable_jobs.admin.links import Links
from durable_jobs.admin.object_links import References
from durable_jobs.admin.pages import actor_of, base_context, viewer_of, with_viewer
from durable_jobs.admin.paging import BoundedChangeList, CappedPaginator
from durable_jobs.admin.payloads import error, hidden, stored
from durable_jobs.models import Run
from durable_jobs.project_code import allowed, safe_bool
from durable_jobs.queries import visibility
from durable_jobs.store import db


class PlainForm(ModelForm):
    """The form of a page without inputs. Its labels have no colon."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.label_suffix = ""


class ReadOnlyAdmin(admin.ModelAdmin):
    """Show rows to users with the view permission.

    ``payloads`` are columns that may be large. Lists never load them. The page of one
    row reads the beginning of their text from the database, as ``<name>_text``.
    ``summary_fields`` are shown together at the top of that page. ``payload_fields``
    are shown below, each with a title, by the method ``<name>_display``. Empty fields
    are left out.
    """

    payloads: ClassVar[tuple[str, ...]] = ()
    summary_fields: ClassVar[tuple[str, ...]] = ()
    payload_fields: ClassVar[tuple[tuple[Any, str], ...]] = ()
    #: Payload fields, and what users without ``view_payload`` see instead of each.
    masks: ClassVar[dict[str, str]] = {
        **dict.fromkeys(
            ("data", "input", "output", "detail", "logs", "user"), "hidden"
        ),
        "error": "error_masked",
    }
    #: Columns and fields that need the ``view_payload`` permission.
    restricted_fields: ClassVar[tuple[str, ...]] = ()

    actions: Any = None
    form = PlainForm
    list_max_show_all = 0
    list_per_page = 50
    paginator = CappedPaginator
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    sortable_by = ()
    view_on_site = False

    class Media:
        css: ClassVar = {"all": ["durable_jobs/admin.css"]}

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Return the backends' verdict. An error in a backend means no."""
        return safe_bool(
            lambda: super(ReadOnlyAdmin, self).has_module_permission(request),
            "whether the app is shown",
        )

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return the backends' verdict. An error in a backend means no."""
        name = get_permission_codename("view", self.opts)
        return allowed(request.user, f"{self.opts.app_label}.{name}")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def may_view_payloads(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the viewer may see the payloads of rows."""
        return actor_of(request).may("durable_jobs.view_payload", obj)

    @property
    def tab(self) -> str:
        """Return the name of the current tab."""
        return f"{self.opts.model_name}_changelist"

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        context = base_context(self.admin_site, request, self.tab) | (
            extra_context or {}
        )
        context.setdefault("title", capfirst(self.opts.verbose_name_plural))
        return super().changelist_view(request, context)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        return BoundedChangeList

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        """Return whether a declared filter allows it. Others could read payloads."""
        names = (getattr(item, "parameter_name", None) for item in self.list_filter)
        return lookup in names

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the visible rows without payloads."""
        rows = super().get_queryset(request).using(db.alias())
        viewer = viewer_of(self.admin_site, request)
        if self.model is Run:
            # A project's own RunAdmin applies its filter to the result of this method.
            rows = visibility.visible_runs(replace(viewer, shown=None, _kept={}), rows)
        else:
            with visibility.seen_by(viewer):
                rows = visibility.rows_of(rows)
        return rows.defer(*self.payloads)

    #: To detect a subclass that overrides ``get_queryset``.
    package_get_queryset = get_queryset

    def get_urls(self) -> list[Any]:
        """Return Django's URLs, limited to the runs that the viewer may see."""
        found = super().get_urls()
        for pattern in found:
            pattern.callback = with_viewer(self.admin_site, pattern.callback)
        return found

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        """Return one row with its payloads as text. Raise 404 if the row is missing."""
        texts = {f"{name}_text": stored(name) for name in self.payloads}
        rows = self.get_queryset(request).annotate(**texts)
        try:
            key = self.opts.pk.to_python(object_id)
            if "\x00" in object_id:
                raise Http404
            found: Any = rows.get(pk=key)
        except (self.model.DoesNotExist, ValidationError, ValueError):
            raise Http404 from None
        shown = [getattr(found, name) for name in texts]
        found.references = References(Links(self.admin_site, request), shown)
        return found

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Add to a row's page what is more than its columns."""
        links = Links(self.admin_site, request)
        context.update(base_context(self.admin_site, request, self.tab))
        context.update(self.sections(context["original"], links))
        return super().render_change_form(request, context, *args, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return one fieldset of summary fields and one per payload."""
        names = self.visible_fields(request, self.summary_fields, obj)
        facts = [name for name in names if self._has_value(name, obj)]
        show_payloads = self.may_view_payloads(request, obj)
        masks = {} if show_payloads else self.masks
        bodies = [
            (title, masks.get(name, f"{name}_display"))
            for title, name in self.payload_fields
            if getattr(obj, f"{name}_text", None) is not None
        ]
        return [
            (None, {"fields": facts, "classes": ["durable-facts"]}),
            *(
                (title, {"fields": [field], "classes": ["durable-body"]})
                for title, field in bodies
            ),
        ]

    @admin.display(description="")
    def hidden(self, row: Any) -> SafeString:
        """Return the text shown in place of a payload."""
        return hidden()

    @admin.display(description=_("error"))
    def error_masked(self, row: Any) -> SafeString | None:
        """Return the error's type without its message."""
        return error(row.error_text, show_payloads=False)

    def visible_fields(
        self, request: HttpRequest, names: Iterable[Any], obj: Any = None
    ) -> list[Any]:
        """Return the fields that the viewer may see."""
        show_payloads = self.may_view_payloads(request, obj)
        return [
            name
            for name in names
            if show_payloads or name not in self.restricted_fields
        ]

    def get_list_display(self, request: HttpRequest) -> Any:
        return self.visible_fields(request, super().get_list_display(request))

    def _has_value(self, name: str, row: Any) -> bool:
        return row is None or lookup_field(name, row, self)[2] not in (None, "", 0)

    def sections(self, row: Any, links: Links) -> dict[str, Any]:
        """Return extra template context for the page of a row."""
        return {}

    def older_than(self, row: Any) -> dict[str, Any] | None:
        """Return the filter for the rows after ``row`` in the list, if any."""
        return None
