"""Paging of tables that are too large to count or sort."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.paginator import Paginator
from django.utils.functional import cached_property
from django.utils.translation import gettext as _

#: The most rows that a list counts and shows as numbered pages.
MOST = 1000
#: The URL parameter for rows older than a given row.
OLDER = "before"


class CappedPaginator(Paginator):
    """A paginator over the first ``MOST`` rows."""

    @cached_property
    def found(self) -> int:
        """Return the number of rows, at most ``MOST + 1``."""
        rows: Any = self.object_list
        # Keep the order, which lets the database count by the list's index.
        return int(rows[: MOST + 1].count())

    @property
    def capped(self) -> bool:
        """Return whether there are more rows than the pages show."""
        return self.found > MOST

    @cached_property
    def count(self) -> int:
        """Return the number of rows on all pages."""
        return min(self.found, MOST)


class BoundedChangeList(ChangeList):
    """A change list in its admin's order. The last page links to older rows."""

    model_admin: Any
    older: str | None = None
    newest: str | None = None

    def get_ordering(self, request: Any, queryset: Any) -> Any:
        """Return the admin's order. An order from the URL may have no index."""
        return [*self.model_admin.get_ordering(request)]

    def get_results(self, request: Any) -> None:
        """Add the URLs of older rows and of the newest rows."""
        super().get_results(request)
        if OLDER in self.filter_params:
            self.newest = self.get_query_string({OLDER: None})
        if self.capped and self.page_num == self.paginator.num_pages:
            follow = self.model_admin.older_than(list(self.result_list)[-1])
            self.older = self.get_query_string(follow) if follow else None

    def get_query_string(self, new_params: Any = None, remove: Any = None) -> str:
        """Return a URL of the list. A changed filter starts with the newest rows."""
        follows = {PAGE_VAR, OLDER} & {*(new_params or {})}
        removed = [*(remove or []), *([] if follows else [OLDER])]
        return str(super().get_query_string(new_params, removed))

    @property
    def capped(self) -> bool:
        """Return whether there are more rows than the pages show."""
        return bool(getattr(self.paginator, "capped", False))

    @property
    def count_text(self) -> str:
        """Return the number of rows as text, with "+" if counting stopped."""
        if self.capped:
            return _("%(count)s+") % {"count": self.result_count}
        return str(self.result_count)
