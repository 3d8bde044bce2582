"""What the consumer could not read."""

from django.contrib import admin
from django.utils.safestring import SafeString

from prices.admin.formatting import preformatted, readable
from prices.admin.read_only import ReadOnlyAdmin
from prices.models import DeadLetter


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin):
    """Dead letters."""

    list_display = ["created_at", "topic", "partition", "offset", "reason", "replayed_at"]
    list_filter = [("replayed_at", admin.EmptyFieldListFilter)]
    ordering = ["-id"]
    exclude = ["key", "value", "headers"]
    readonly_fields = ["key_text", "value_text", "headers_text"]

    @admin.display(description="key")
    def key_text(self, letter: DeadLetter) -> SafeString:
        """Return the key as text."""
        return readable(letter.key)

    @admin.display(description="value")
    def value_text(self, letter: DeadLetter) -> SafeString:
        """Return the value as text."""
        return readable(letter.value)

    @admin.display(description="headers")
    def headers_text(self, letter: DeadLetter) -> SafeString:
        """Return the headers as text, one a line."""
        if letter.headers is None:
            return preformatted("not known")
        return readable(b"\n".join(b"%s: %s" % (name, value or b"") for name, value in letter.headers))
