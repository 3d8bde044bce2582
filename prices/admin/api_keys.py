"""API keys: to look at, create, and revoke."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from prices.access.keys import LONGEST_NAME, create_key, key_state, read_client_name, revoke_key
from prices.admin.read_only import ReadOnlyAdmin
from prices.models import ApiKey, Scope
from prices.models.api_client import SCOPES_IN_WORDS

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[ApiKey]
else:
    ModelForm = forms.ModelForm


class KeyForm(ModelForm):
    """What a new key is made of."""

    client_name = forms.CharField(
        label="Client",
        max_length=LONGEST_NAME,
        help_text="Whose it is; a new name is a new client. Its jobs are those of all its keys.",
    )
    scopes = forms.MultipleChoiceField(
        choices=Scope.choices,
        initial=[Scope.READ],
        widget=forms.CheckboxSelectMultiple,
        help_text=f"What it opens: {SCOPES_IN_WORDS}.",
    )

    class Meta:
        model = ApiKey
        fields = ["scopes", "expires_at"]
        help_texts = {"expires_at": "In UTC. Without it the key opens until it is revoked."}

    def clean_client_name(self) -> str:
        """Refuse a name that holds what cannot be seen."""
        try:
            return read_client_name(self.cleaned_data["client_name"])
        except ValueError as error:
            raise forms.ValidationError("Only characters that can be seen, and spaces.") from error

    def clean_expires_at(self) -> Any:
        """Refuse an end that is over."""
        end = self.cleaned_data["expires_at"]
        if end is not None and end <= timezone.now():
            raise forms.ValidationError("This is over.")
        return end


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    """API keys. Nothing of a key changes but that it is revoked: another one is made in its place."""

    form = KeyForm
    list_display = ["client", "prefix", "opens", "state", "created_at", "last_used_at"]
    list_display_links = ["prefix"]
    list_select_related = ["client"]
    ordering = ["client__name", "-id"]
    search_fields = ["prefix", "client__name"]
    actions = ["revoke"]
    add_fields = ["client_name", "scopes", "expires_at"]
    shown_fields = [
        "client",
        "prefix",
        "opens",
        "state",
        "created_at",
        "expires_at",
        "last_used_at",
        "revoked_at",
    ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may create keys: only who may do all that a key may open."""
        return request.user.has_perms(["prices.add_apikey", "prices.change_polljob"])

    def has_manage_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may revoke keys."""
        return request.user.has_perm("prices.change_apikey")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Return the keys whose client's name, or whose beginning, has the text in it."""
        return super(ReadOnlyAdmin, self).get_search_results(request, queryset, search_term)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        """Return what a new key is made of, or what there is of one but its digest."""
        return self.add_fields if obj is None else self.shown_fields

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        """Return what no form holds: all of a key that is made."""
        return [] if obj is None else self.shown_fields

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """Create the key, and show it once."""
        values = form.cleaned_data
        scopes = [Scope(name) for name in values["scopes"]]
        made = create_key(values["client_name"], scopes, expires_at=values["expires_at"])
        obj.pk, obj.client, obj.prefix = made.row.pk, made.row.client, made.row.prefix
        # Not at the beginning, where Django would make its first letter a capital.
        self.message_user(
            request, f"The key is {made.text} and is shown this once: keep it now.", messages.WARNING
        )

    @admin.display(description="scopes")
    def opens(self, key: ApiKey) -> str:
        """Return the scopes."""
        return ", ".join(key.scopes)

    @admin.display(description="state")
    def state(self, key: ApiKey) -> str:
        """Return until when the key opens anything."""
        return key_state(key, now=timezone.now())

    @admin.action(description="Revoke selected API keys", permissions=["manage"])
    def revoke(self, request: HttpRequest, keys: QuerySet[ApiKey]) -> None:
        """Revoke the keys."""
        for key in keys:
            revoke_key(key.prefix)
            if key.revoked_at is None:
                self.log_change(request, key, "Revoked.")
        self.message_user(request, f"{len(keys)} revoked: they open nothing from now on.")
