"""The shapes of a job's ledger, for the OpenAPI schema."""

from typing import Any

from rest_framework import serializers

from prices.api.schema.common import Choice
from prices.models import RunState


class Run(serializers.Serializer[Any]):
    """A slot of a job that a worker claimed, and what became of it."""

    poll_id = serializers.UUIDField(help_text="As in the header `poll_id` of the prices' events.")
    due_at = serializers.DateTimeField(help_text="The slot: when the poll was due.")
    state = Choice(
        RunState.values,
        name="RunState",
        help_text=(
            "claimed: not ended yet. stored: prices were asked for and came. shared: all prices are others'."
            " failed: asked, and no price came. skipped: not asked. abandoned: its worker ended before."
        ),
    )
    reason = serializers.CharField(
        allow_null=True, help_text="Why there is no price, or not for each symbol."
    )
    points = serializers.IntegerField(min_value=0, help_text="Prices that answered the slot.")
    started_at = serializers.DateTimeField(help_text="When a worker claimed it.")
    finished_at = serializers.DateTimeField(allow_null=True, help_text="Null while it is claimed.")
    delay_s = serializers.FloatField(
        help_text=(
            "Seconds from due_at to started_at. A job that is new or resumed takes the slot that is past at"
            " once: that one may be late by up to the interval."
        )
    )


class RunsPage(serializers.Serializer[Any]):
    """A page of runs."""

    results = Run(many=True)
    next = serializers.URLField(allow_null=True, help_text="The next page, of older ones.")


class Gap(serializers.Serializer[Any]):
    """Consecutive slots of a job that got no price, for one reason."""

    to = serializers.DateTimeField(help_text="Its last slot.")
    slots = serializers.IntegerField(
        min_value=1, help_text="How many there are, the first and the last included."
    )
    reason = serializers.CharField()
    kind = Choice(
        ["gap", "failed", "skipped", "market_closed"],
        name="GapKind",
        help_text=(
            "gap: nobody polled. failed: polled, and no price came. skipped: a worker left it out."
            " market_closed: not to be polled, since the markets of a job with `market_hours` were closed."
        ),
    )

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        """Return the fields; the first one's name is a word of Python."""
        first = serializers.DateTimeField(help_text="Its first slot.")
        return {"from": first} | super().get_fields()


class GapsPage(serializers.Serializer[Any]):
    """A page of gaps."""

    results = Gap(many=True)
    next = serializers.URLField(allow_null=True, help_text="The next page, of older ones.")


class LastDay(serializers.Serializer[Any]):
    """What became of a job's slots in the last 24 hours."""

    slots = serializers.IntegerField(
        help_text=(
            "The sum of stored, shared, failed, skipped and in_gaps. Slots that are open, or not noted yet,"
            " are left out."
        )
    )
    stored = serializers.IntegerField(help_text="Prices were asked for and came.")
    shared = serializers.IntegerField(help_text="All prices are those that others had asked for.")
    failed = serializers.IntegerField(help_text="Asked, and no price came.")
    skipped = serializers.IntegerField(
        help_text="A worker left it out, such as for the provider's budget; /jobs/{job_id}/gaps says why."
    )
    in_gaps = serializers.IntegerField(
        help_text="Nobody polled: the service was down, the job was paused, a worker died."
    )
    market_closed = serializers.IntegerField(
        help_text="Slots that a job with `market_hours` was not to be polled at: none of `slots`."
    )
