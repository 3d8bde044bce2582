"""The tables that grow, range-partitioned by their time-ordered id: old rows go by dropping a partition.

The SQL is what the state operations beside it would make, with PARTITION BY and a default partition
added; a test compares the two.
"""

from decimal import Decimal

import django.contrib.postgres.fields
import django.contrib.postgres.indexes
import django.db.models.deletion
import django.db.models.functions.datetime
import django.db.models.lookups
from django.db import migrations, models

import prices.database.fields
import prices.models.raw_market_data

RAW_MARKET_DATA = """
CREATE TABLE raw_market_data (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    poll uuid NULL,
    provider text NOT NULL,
    symbols text[] NOT NULL,
    url text NOT NULL,
    status smallint NULL CHECK (status >= 0),
    outcome text NOT NULL,
    message text NOT NULL,
    payload jsonb NULL,
    body bytea NULL,
    received_at timestamp with time zone NOT NULL,
    latency_ms double precision NOT NULL,
    CONSTRAINT raw_market_data_outcome_known CHECK (outcome IN (
        'quote', 'unknown_symbol', 'rate_limited', 'invalid_key', 'not_entitled', 'upstream_error',
        'malformed')),
    CONSTRAINT raw_market_data_one_form CHECK (body IS NULL OR payload IS NULL),
    CONSTRAINT raw_market_data_body_small CHECK (octet_length(body) <= 65536)
) PARTITION BY RANGE (id);
CREATE TABLE raw_market_data_default PARTITION OF raw_market_data DEFAULT;
CREATE INDEX raw_market_data_provider_id ON raw_market_data (provider, id);
"""

PRICE_POINTS = """
CREATE TABLE price_points (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    symbol text NOT NULL,
    provider text NOT NULL,
    price numeric NOT NULL,
    currency text NULL,
    observed_at timestamp with time zone NULL,
    precision text NOT NULL,
    received_at timestamp with time zone NOT NULL,
    raw uuid NOT NULL,
    published_at timestamp with time zone NULL,
    CONSTRAINT price_points_price_sound CHECK (price > 0 AND price < 1000000000000 AND scale(price) <= 12),
    CONSTRAINT price_points_precision_known CHECK (precision IN ('second', 'day', 'unknown')),
    CONSTRAINT price_points_precision_of_time CHECK ((observed_at IS NULL) = (precision = 'unknown'))
) PARTITION BY RANGE (id);
CREATE TABLE price_points_default PARTITION OF price_points DEFAULT;
CREATE INDEX price_points_symbol_id ON price_points (symbol, id);
CREATE INDEX price_points_symbol_provider ON price_points (symbol, provider, id);
CREATE INDEX price_points_unpublished ON price_points (id) WHERE published_at IS NULL;
"""

POLL_RUNS = """
CREATE TABLE poll_runs (
    id uuid PRIMARY KEY,
    job_id uuid NOT NULL,
    due_at timestamp with time zone NOT NULL,
    state text NOT NULL,
    reason text NOT NULL,
    points integer NOT NULL CHECK (points >= 0),
    started_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone NULL,
    CONSTRAINT poll_runs_state_known CHECK (state IN (
        'claimed', 'stored', 'shared', 'failed', 'skipped', 'abandoned')),
    CONSTRAINT poll_runs_finished_unless_claimed CHECK ((state = 'claimed') = (finished_at IS NULL))
) PARTITION BY RANGE (id);
CREATE TABLE poll_runs_default PARTITION OF poll_runs DEFAULT;
CREATE INDEX poll_runs_job_id ON poll_runs (job_id, id);
CREATE INDEX poll_runs_claimed ON poll_runs (id) WHERE state = 'claimed';
"""

SYMBOL_AVERAGES = """
CREATE TABLE symbol_averages (
    event_id uuid PRIMARY KEY,
    symbol text NOT NULL,
    price numeric NOT NULL,
    average numeric NULL,
    window_size smallint NOT NULL CHECK (window_size >= 0),
    provider text NOT NULL,
    observed_at timestamp with time zone NULL,
    created_at timestamp with time zone NOT NULL DEFAULT statement_timestamp(),
    tx bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    CONSTRAINT symbol_averages_price_sound CHECK (price > 0 AND price < 1000000000000 AND scale(price) <= 12),
    CONSTRAINT symbol_averages_full_window CHECK (
        window_size BETWEEN 1 AND 5 AND (average IS NULL) = (window_size < 5))
) PARTITION BY RANGE (event_id);
CREATE TABLE symbol_averages_default PARTITION OF symbol_averages DEFAULT;
CREATE INDEX symbol_averages_symbol_event ON symbol_averages (symbol, event_id);
CREATE INDEX symbol_averages_tx ON symbol_averages USING brin (tx);
"""


class Migration(migrations.Migration):
    dependencies = [("prices", "0001_poll_jobs")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(RAW_MARKET_DATA, "DROP TABLE raw_market_data")],
            state_operations=[
                migrations.CreateModel(
                    name="RawMarketData",
                    fields=[
                        (
                            "id",
                            models.UUIDField(
                                db_default=prices.database.fields.UuidV7(),
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        (
                            "poll",
                            models.UUIDField(
                                help_text="The poll run that asked; empty for GET /prices/latest.", null=True
                            ),
                        ),
                        ("provider", models.TextField()),
                        (
                            "symbols",
                            django.contrib.postgres.fields.ArrayField(
                                base_field=models.TextField(), size=None
                            ),
                        ),
                        ("url", models.TextField(help_text="What was asked, without the key.")),
                        (
                            "status",
                            models.PositiveSmallIntegerField(
                                help_text="HTTP status; empty where no answer came.", null=True
                            ),
                        ),
                        (
                            "outcome",
                            models.TextField(
                                choices=[
                                    ("quote", "Quote"),
                                    ("unknown_symbol", "Unknown Symbol"),
                                    ("rate_limited", "Rate Limited"),
                                    ("invalid_key", "Invalid Key"),
                                    ("not_entitled", "Not Entitled"),
                                    ("upstream_error", "Upstream Error"),
                                    ("malformed", "Malformed"),
                                ]
                            ),
                        ),
                        (
                            "message",
                            models.TextField(blank=True, help_text="What the error said, in our words."),
                        ),
                        ("payload", models.JSONField(null=True)),
                        ("body", models.BinaryField(null=True)),
                        ("received_at", models.DateTimeField()),
                        ("latency_ms", models.FloatField()),
                    ],
                    options={
                        "verbose_name": "raw market data",
                        "verbose_name_plural": "raw market data",
                        "db_table": "raw_market_data",
                        "indexes": [
                            models.Index(fields=["provider", "id"], name="raw_market_data_provider_id")
                        ],
                        "constraints": [
                            models.CheckConstraint(
                                condition=models.Q(
                                    (
                                        "outcome__in",
                                        [
                                            "quote",
                                            "unknown_symbol",
                                            "rate_limited",
                                            "invalid_key",
                                            "not_entitled",
                                            "upstream_error",
                                            "malformed",
                                        ],
                                    )
                                ),
                                name="raw_market_data_outcome_known",
                            ),
                            models.CheckConstraint(
                                condition=models.Q(
                                    ("body__isnull", True), ("payload__isnull", True), _connector="OR"
                                ),
                                name="raw_market_data_one_form",
                            ),
                            models.CheckConstraint(
                                condition=models.Q(
                                    django.db.models.lookups.LessThanOrEqual(
                                        prices.models.raw_market_data.OctetLength("body"), 65536
                                    )
                                ),
                                name="raw_market_data_body_small",
                            ),
                        ],
                    },
                ),
            ],
        ),
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(PRICE_POINTS, "DROP TABLE price_points")],
            state_operations=[
                migrations.CreateModel(
                    name="PricePoint",
                    fields=[
                        (
                            "id",
                            models.UUIDField(
                                db_default=prices.database.fields.UuidV7(),
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("symbol", models.TextField()),
                        ("provider", models.TextField()),
                        ("price", prices.database.fields.ExactDecimalField()),
                        ("currency", models.TextField(null=True)),
                        (
                            "observed_at",
                            models.DateTimeField(
                                help_text="When the price was true, by the provider.", null=True
                            ),
                        ),
                        (
                            "precision",
                            models.TextField(
                                choices=[("second", "Second"), ("day", "Day"), ("unknown", "Unknown")]
                            ),
                        ),
                        (
                            "received_at",
                            models.DateTimeField(help_text="When the answer reached this service."),
                        ),
                        (
                            "raw",
                            models.UUIDField(help_text="The raw answer, which is kept for a shorter time."),
                        ),
                        (
                            "published_at",
                            models.DateTimeField(
                                help_text="When Kafka confirmed it; empty: still to publish.", null=True
                            ),
                        ),
                    ],
                    options={
                        "db_table": "price_points",
                        "indexes": [
                            models.Index(fields=["symbol", "id"], name="price_points_symbol_id"),
                            models.Index(
                                fields=["symbol", "provider", "id"], name="price_points_symbol_provider"
                            ),
                            models.Index(
                                condition=models.Q(("published_at__isnull", True)),
                                fields=["id"],
                                name="price_points_unpublished",
                            ),
                        ],
                        "constraints": [
                            models.CheckConstraint(
                                condition=models.Q(
                                    ("price__gt", 0),
                                    ("price__lt", Decimal(1000000000000)),
                                    django.db.models.lookups.LessThanOrEqual(
                                        prices.database.fields.Scale("price"), 12
                                    ),
                                ),
                                name="price_points_price_sound",
                            ),
                            models.CheckConstraint(
                                condition=models.Q(("precision__in", ["second", "day", "unknown"])),
                                name="price_points_precision_known",
                            ),
                            models.CheckConstraint(
                                condition=models.Q(
                                    models.Q(("observed_at__isnull", True), ("precision", "unknown")),
                                    models.Q(
                                        ("observed_at__isnull", False), ("precision__in", ["second", "day"])
                                    ),
                                    _connector="OR",
                                ),
                                name="price_points_precision_of_time",
                            ),
                        ],
                    },
                ),
            ],
        ),
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(POLL_RUNS, "DROP TABLE poll_runs")],
            state_operations=[
                migrations.CreateModel(
                    name="PollRun",
                    fields=[
                        ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                        ("due_at", models.DateTimeField()),
                        (
                            "state",
                            models.TextField(
                                choices=[
                                    ("claimed", "Claimed"),
                                    ("stored", "Stored"),
                                    ("shared", "Shared"),
                                    ("failed", "Failed"),
                                    ("skipped", "Skipped"),
                                    ("abandoned", "Abandoned"),
                                ],
                                default="claimed",
                            ),
                        ),
                        ("reason", models.TextField(blank=True)),
                        (
                            "points",
                            models.PositiveIntegerField(default=0, help_text="Prices that were stored."),
                        ),
                        ("started_at", models.DateTimeField()),
                        ("finished_at", models.DateTimeField(null=True)),
                        (
                            "job",
                            models.ForeignKey(
                                db_constraint=False,
                                db_index=False,
                                on_delete=django.db.models.deletion.PROTECT,
                                related_name="runs",
                                to="prices.polljob",
                            ),
                        ),
                    ],
                    options={
                        "db_table": "poll_runs",
                    },
                ),
                migrations.AddIndex(
                    model_name="pollrun",
                    index=models.Index(fields=["job", "id"], name="poll_runs_job_id"),
                ),
                migrations.AddIndex(
                    model_name="pollrun",
                    index=models.Index(
                        condition=models.Q(("state", "claimed")), fields=["id"], name="poll_runs_claimed"
                    ),
                ),
                migrations.AddConstraint(
                    model_name="pollrun",
                    constraint=models.CheckConstraint(
                        condition=models.Q(
                            ("state__in", ["claimed", "stored", "shared", "failed", "skipped", "abandoned"])
                        ),
                        name="poll_runs_state_known",
                    ),
                ),
                migrations.AddConstraint(
                    model_name="pollrun",
                    constraint=models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("finished_at__isnull", True), ("state", "claimed")),
                            models.Q(
                                models.Q(("state", "claimed"), _negated=True), ("finished_at__isnull", False)
                            ),
                            _connector="OR",
                        ),
                        name="poll_runs_finished_unless_claimed",
                    ),
                ),
            ],
        ),
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(SYMBOL_AVERAGES, "DROP TABLE symbol_averages")],
            state_operations=[
                migrations.CreateModel(
                    name="SymbolAverage",
                    fields=[
                        ("event_id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                        ("symbol", models.TextField()),
                        ("price", prices.database.fields.ExactDecimalField()),
                        ("average", prices.database.fields.ExactDecimalField(null=True)),
                        (
                            "window_size",
                            models.PositiveSmallIntegerField(help_text="Points in the window, 1 to 5."),
                        ),
                        ("provider", models.TextField()),
                        ("observed_at", models.DateTimeField(null=True)),
                        (
                            "created_at",
                            models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                        ),
                        (
                            "tx",
                            models.BigIntegerField(db_default=prices.database.fields.CurrentTransaction()),
                        ),
                    ],
                    options={
                        "db_table": "symbol_averages",
                        "indexes": [
                            models.Index(
                                models.F("symbol"), models.F("event_id"), name="symbol_averages_symbol_event"
                            ),
                            django.contrib.postgres.indexes.BrinIndex(
                                fields=["tx"], name="symbol_averages_tx"
                            ),
                        ],
                        "constraints": [
                            models.CheckConstraint(
                                condition=models.Q(
                                    ("price__gt", 0),
                                    ("price__lt", Decimal(1000000000000)),
                                    django.db.models.lookups.LessThanOrEqual(
                                        prices.database.fields.Scale("price"), 12
                                    ),
                                ),
                                name="symbol_averages_price_sound",
                            ),
                            models.CheckConstraint(
                                condition=models.Q(
                                    models.Q(("average__isnull", True), ("window_size__range", (1, 4))),
                                    models.Q(("average__isnull", False), ("window_size", 5)),
                                    _connector="OR",
                                ),
                                name="symbol_averages_full_window",
                            ),
                        ],
                    },
                ),
            ],
        ),
    ]
