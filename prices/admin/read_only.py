"""Tables that can be looked at and not changed."""

from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest

from prices.admin.change_list import NewestFirst
from prices.symbols import normalise_symbol
from providers.registry import PROVIDER_NAMES

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin


class ProviderFilter(admin.SimpleListFilter):
    """Filter by provider, from the known names: asking a table of millions for its own is slow."""

    title = "provider"
    parameter_name = "provider"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the providers' names."""
        return [(name, name) for name in PROVIDER_NAMES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows of the chosen provider."""
        return queryset.filter(provider=self.value()) if self.value() else queryset


class ReadOnlyAdmin(ModelAdmin):
    """A table that can be looked at and not changed.

    The search finds a whole symbol or a whole id: what the indexes answer at any size. `linked_lookups` are
    conditions that links of other pages set.
    """

    symbol_lookup = ""
    id_lookups: tuple[str, ...] = ("pk",)
    linked_lookups: tuple[str, ...] = ()
    search_fields = ["pk"]
    show_full_result_count = False
    list_per_page = 50

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Return whether a filter or a link sets this condition: others may be slow, or fail."""
        name, _, condition = lookup.partition("__")
        filtered = {_filtered_name(each) for each in self.list_filter}
        by_filter = name in filtered and condition in {"", "exact", "isempty"}
        return by_filter or lookup in self.linked_lookups

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Return the rows of this id or symbol; all of them where nothing is searched."""
        term = search_term.strip()
        if not term:
            return queryset, False
        as_id = _as_uuid(term)
        if as_id is not None:
            return queryset.filter(self.of_id(as_id)), False
        symbol = normalise_symbol(term)
        if symbol is None or not self.symbol_lookup:
            return queryset.none(), False
        wanted = [symbol] if self.symbol_lookup.endswith("__contains") else symbol
        return queryset.filter(**{self.symbol_lookup: wanted}), False

    def of_id(self, searched: UUID) -> Q:
        """Return what is true of the rows that an id finds."""
        return Q(*((lookup, searched) for lookup in self.id_lookups), _connector=Q.OR)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        """Return every field, the id first."""
        return list(dict.fromkeys([self.opts.pk.name, *super().get_fields(request, obj)]))

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        """Return what no form holds: the id too."""
        return [self.opts.pk.name, *super().get_readonly_fields(request, obj)]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: rows come from the service."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Refuse: evidence stays as it is."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Refuse: evidence goes with its partition."""
        return False


class PartitionedAdmin(ReadOnlyAdmin):
    """A table of any size that is partitioned by time: the newest rows first, in no other order."""

    sortable_by = ()
    show_facets = admin.ShowFacets.NEVER

    def get_changelist(self, request: HttpRequest, **_kwargs: Any) -> type[ChangeList]:
        """Return the list that opens no more partitions than it shows."""
        return NewestFirst


def _filtered_name(list_filter: Any) -> str:
    """Return the field or parameter that an entry of `list_filter` is about."""
    if isinstance(list_filter, tuple):
        return str(list_filter[0])
    return list_filter if isinstance(list_filter, str) else str(list_filter.parameter_name)


def _as_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
