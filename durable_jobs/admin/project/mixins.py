"""The mixin for your project's ModelAdmins: runs of objects, and admin actions.

::

    from durable_jobs.admin import DurableRunsMixin

    @admin.register(Order)
    class OrderAdmin(DurableRunsMixin, admin.ModelAdmin):
        list_display = ("__str__", "durable_runs")
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.admin.options import IS_POPUP_VAR
from django.http import HttpRequest, HttpResponse
from django.template.loader import get_template, select_template
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.translation import gettext_lazy as _

from durable_jobs.admin.links import Links
from durable_jobs.admin.project import panel, start_action

if TYPE_CHECKING:
    Base = admin.ModelAdmin
else:
    Base = object

COLUMN = "durable_runs"
_COLUMN_ATTRIBUTE = "_durable_column"


class DurableRunsMixin(Base):
    """Show the runs about an object, and add functions as admin actions.

    Put the mixin before ``ModelAdmin``. ``durable_panel = False`` removes the panel
    from the change page, for templates that use ``{% durable_runs original %}``.
    ``durable_protect = True`` forbids deleting objects that have live runs.
    """

    durable_panel = True
    durable_protect = False

    @property
    def media(self) -> forms.Media:
        """Return the admin's media with the stylesheet of statuses."""
        return super().media + forms.Media(css={"all": ["durable_jobs/admin.css"]})

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(partial(start_action.view, self))
        name = f"{self.opts.app_label}_{self.opts.model_name}_durable_start"
        start_path = path("durable/start/<path:function_id>/", view, name=name)
        return [start_path, *super().get_urls()]

    # The list

    @admin.display(description=_("runs"))
    def durable_runs(self, obj: Any) -> Any:
        """Return the counts of live and failed runs: a column of the list."""
        column = obj.__dict__.get(_COLUMN_ATTRIBUTE)
        return column.cell(obj) if column is not None else None

    def get_list_display(self, request: HttpRequest) -> Any:
        """Return the columns, without the runs if the viewer may not see them."""
        names = super().get_list_display(request)
        if COLUMN not in names or panel.may_view(self.admin_site, request):
            return names
        return [name for name in names if name != COLUMN]

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Return the list. One query counts the runs of all rows."""
        found = super().get_changelist_instance(request)
        if COLUMN in found.list_display:
            # The list renders these instances: the queryset caches its rows.
            rows = list(found.result_list)
            links = Links(self.admin_site, request)
            column = panel.Column(self.model, rows, links)
            for row in rows:
                row.__dict__[_COLUMN_ATTRIBUTE] = column
        return found

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> Any:
        """Return the actions with the functions that declare this model.

        Newer Djangos show actions on the page of one object too. There the functions
        are object tools.
        """
        where = {} if action_location is None else {"action_location": action_location}
        found = super().get_actions(request, **where)
        on_page = getattr(action_location, "name", "") == "CHANGE_FORM"
        if on_page or self.actions is None or IS_POPUP_VAR in request.GET:
            return found
        return {**found, **start_action.actions(self, request, action_location)}

    # The page of one object

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Add the tools and the panel to the page's own template."""
        response = super().render_change_form(request, context, *args, **kwargs)
        obj = context.get("original")
        if obj is None or not isinstance(response, TemplateResponse):
            return response
        name: Any = response.template_name
        base = get_template(name) if isinstance(name, str) else select_template(name)
        assert response.context_data is not None
        response.context_data |= {
            "durable_base": base,
            "durable_panel": self.durable_panel,
            "durable_tools": self._durable_tools(request, obj),
        }
        response.template_name = "admin/durable_jobs/object_change_form.html"
        return response

    def _durable_tools(self, request: HttpRequest, obj: Any) -> list[tuple[Any, str]]:
        tools: list[tuple[Any, str]] = [
            (one.name, f"{start_action.url_of(self, one)}?pk={obj.pk}")
            for one in start_action.allowed_functions(self, request)
        ]
        address = panel.runs_url(Links(self.admin_site, request), obj)
        return [*tools, (_("Runs"), address)] if address else tools

    # Deleting

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Add the live runs about the objects to the confirmation page."""
        deleted, counts, perms_needed, protected = super().get_deleted_objects(
            objs, request
        )
        site, objects = self.admin_site, list(objs)
        warning = panel.warning(site, request, objects)
        if warning and self.durable_protect:
            protected = [*protected, *warning]
        elif warning:
            deleted = [*deleted, *warning]
        return deleted, counts, perms_needed, protected
