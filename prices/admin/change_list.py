"""Lists of tables that are partitioned by time, at any size: nothing is counted further than it is shown."""

from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import InvalidPage, Paginator
from django.db.models import QuerySet
from django.http import HttpRequest

from prices.clock import database_now
from prices.database.newest import newest_rows
from prices.database.uuid7 import first_id_at

# Pages that can be gone to from the first one, and from any other.
PAGES_AHEAD = 10
MAX_PAGES = 200


class MoreThan(int):
    """A number of rows that were counted, where there are more; the pages show it so."""

    def __str__(self) -> str:
        return f"more than {int(self)}"


class NewestFirst(ChangeList):
    """A page of the newest rows, by their ids."""

    def get_ordering(self, request: HttpRequest, queryset: "QuerySet[Any]") -> list[Any]:
        """Return the one order that there is."""
        return [f"-{self.lookup_opts.pk.name}"]

    def get_results(self, request: HttpRequest) -> None:
        """Find the ids of this page and the next ones, and the rows of this page."""
        key, size = self.lookup_opts.pk.name, self.list_per_page
        counted = min(max(self.page_num, 1) - 1 + PAGES_AHEAD, MAX_PAGES) * size
        ids: list[Any] = newest_rows(
            self.queryset.values_list(key, flat=True),
            key=key,
            around=first_id_at(database_now()),
            limit=counted + 1,
        )
        self.paginator = Paginator(ids[:counted], size)
        try:
            page = self.paginator.page(self.page_num)
        except InvalidPage as error:
            raise IncorrectLookupParameters from error
        self.result_list = self.queryset.filter(pk__in=list(page.object_list))
        self.result_count = MoreThan(counted) if len(ids) > counted else len(ids)
        self.multi_page = len(ids) > size
        self.show_full_result_count, self.full_result_count = False, None
        self.show_admin_actions = True
        self.can_show_all = False
