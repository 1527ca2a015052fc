"""Lists of tables that are too large to be counted or sorted."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.paginator import Paginator
from django.utils.functional import cached_property
from django.utils.translation import gettext as _

#: Rows that a list counts, and offers as numbered pages, at most.
MOST = 1000
#: The parameter of what is older than a row.
OLDER = "before"


class CappedPaginator(Paginator):
    """Pages over the first rows; the database looks at no more than it must."""

    @cached_property
    def found(self) -> int:
        """Return how many rows there are, one more than ``MOST`` standing for many."""
        rows: Any = self.object_list
        # In their order: without it the database may begin where none of them is.
        return int(rows[: MOST + 1].count())

    @property
    def capped(self) -> bool:
        """Tell whether there is more than the pages show."""
        return self.found > MOST

    @cached_property
    def count(self) -> int:
        """Return how many rows the pages show."""
        return min(self.found, MOST)


class BoundedChangeList(ChangeList):
    """A list in its admin's own order, which goes on beyond its last page."""

    model_admin: Any
    older: str | None = None
    newest: str | None = None

    def get_ordering(self, request: Any, queryset: Any) -> Any:
        """Return the admin's order: one that the address asks for may have no index."""
        return [*self.model_admin.get_ordering(request)]

    def get_results(self, request: Any) -> None:
        """Add the address of what is older to the last page, and the way back."""
        super().get_results(request)
        if OLDER in self.filter_params:
            self.newest = self.get_query_string({OLDER: None})
        if self.capped and self.page_num == self.paginator.num_pages:
            follow = self.model_admin.older_than(list(self.result_list)[-1])
            self.older = self.get_query_string(follow) if follow else None

    def get_query_string(self, new_params: Any = None, remove: Any = None) -> str:
        """Return an address of the list; another filter begins with the newest."""
        follows = {PAGE_VAR, OLDER} & {*(new_params or {})}
        gone = [*(remove or []), *([] if follows else [OLDER])]
        return str(super().get_query_string(new_params, gone))

    @property
    def capped(self) -> bool:
        """Tell whether there is more than the pages show."""
        return bool(getattr(self.paginator, "capped", False))

    @property
    def count_text(self) -> str:
        """Return how many rows there are, as far as that is known."""
        if self.capped:
            return _("%(count)s+") % {"count": self.result_count}
        return str(self.result_count)
