"""What the consumer could not read."""

from django.contrib import admin
from django.utils.safestring import SafeString

from prices.admin.evidence import EvidenceAdmin
from prices.admin.texts import readable
from prices.models import DeadLetter


@admin.register(DeadLetter)
class DeadLetterAdmin(EvidenceAdmin):
    """Dead letters."""

    list_display = ["created_at", "topic", "partition", "offset", "reason", "replayed_at"]
    list_filter = [("replayed_at", admin.EmptyFieldListFilter)]
    ordering = ["-id"]
    exclude = ["key", "value"]
    readonly_fields = ["key_text", "value_text"]

    @admin.display(description="key")
    def key_text(self, letter: DeadLetter) -> SafeString:
        """Give the key as text."""
        return readable(letter.key)

    @admin.display(description="value")
    def value_text(self, letter: DeadLetter) -> SafeString:
        """Give the value as text."""
        return readable(letter.value)
