"""Settings of the market data service, all from the environment; `.env.example` lists them."""

from pathlib import Path

from celery.schedules import crontab
from kombu import Queue

from marketdata import __version__
from marketdata.env import (
    env_bool,
    env_budget,
    env_certificates,
    env_choice,
    env_database,
    env_int,
    env_list,
    env_origins,
    env_proxy,
    env_rate,
    env_required,
    env_text,
    load_env_files,
)
from marketdata.logs import configure_logging

BASE_DIR = Path(__file__).resolve().parent.parent
load_env_files(BASE_DIR)

VERSION = __version__
RUN_HINT = "Start `make run` first, which sets it, or see .env.example."

# --- Django ---------------------------------------------------------------------------------------

SECRET_KEY = env_required("SECRET_KEY", hint=RUN_HINT)
DEBUG = env_bool("DEBUG", default=False)
ALLOWED_HOSTS = env_list("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1],0.0.0.0")
CSRF_TRUSTED_ORIGINS = env_list("CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django_celery_beat",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "marketdata",
    "prices",
    "consumers",
]

MIDDLEWARE = [
    # First, so that every answer has its id, those of the others too.
    "marketdata.serving.request_ids.give_request_id",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "marketdata.middleware.explain_405",
    "marketdata.middleware.refuse_unreadable",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "marketdata.middleware.PageMessages",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

# Pages of which origins may read the answers, never those of the admin; `*`: of any.
CORS_ALLOWED_ORIGINS = env_origins("CORS_ALLOWED_ORIGINS")
CORS_ALLOW_ALL_ORIGINS = CORS_ALLOWED_ORIGINS == ["*"]
CORS_URLS_REGEX = r"/(?!admin(/|$))"
CORS_ALLOW_METHODS = ["GET", "POST", "PATCH", "DELETE"]
CORS_ALLOW_HEADERS = [
    *("Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID"),
    *("X-API-Key", "X-Request-ID"),
]
CORS_EXPOSE_HEADERS = [
    *("Content-Disposition", "ETag", "Link", "Location", "RateLimit", "RateLimit-Policy", "Retry-After"),
    *("X-Request-ID",),
]
if CORS_ALLOWED_ORIGINS:
    INSTALLED_APPS.append("corsheaders")
    # Before whatever may answer: what a page may not read is no use to it.
    MIDDLEWARE.insert(1, "corsheaders.middleware.CorsMiddleware")

DEFAULT_EXCEPTION_REPORTER_FILTER = "marketdata.error_pages.ErrorPageFilter"

ROOT_URLCONF = "marketdata.urls"
WSGI_APPLICATION = "marketdata.wsgi.application"
# Every address works with a trailing slash and without: a redirect would turn a POST into a GET.
APPEND_SLASH = False

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "libraries": {"pages": "prices.pages.filters"},
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
# Times in the admin; DATETIME_FORMAT alone loses to the language's own.
FORMAT_MODULE_PATH = "marketdata.formats"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

STATIC_URL = "static/"
# Admin and Swagger UI are served from the packages' own folders, so no collectstatic step can be forgotten.
WHITENOISE_USE_FINDERS = True
STATICFILES_FINDERS = [
    "django.contrib.staticfiles.finders.AppDirectoriesFinder",
    "prices.pages.chart_library.ChartLibraryFinder",
]

# On behind a proxy or server that speaks TLS; plain HTTP (docker compose on loopback) turns it off openly.
HTTPS_ONLY = env_bool("HTTPS_ONLY", default=not DEBUG)
SECURE_SSL_REDIRECT = HTTPS_ONLY
SESSION_COOKIE_SECURE = HTTPS_ONLY
CSRF_COOKIE_SECURE = HTTPS_ONLY
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS_ONLY else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = HTTPS_ONLY
SECURE_HSTS_PRELOAD = HTTPS_ONLY
# Health checks come from inside, where there is no TLS.
SECURE_REDIRECT_EXEMPT = [r"^livez/?$", r"^readyz/?$"]
if env_bool("BEHIND_TLS_PROXY", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# --- PostgreSQL, Redis, Kafka ---------------------------------------------------------------------

DATABASES = {"default": env_database("DATABASE_URL", hint=RUN_HINT)}
DATABASES["default"]["OPTIONS"].setdefault("connect_timeout", 5)
DATABASES["default"]["CONN_MAX_AGE"] = 60
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True

REDIS_URL = env_text("REDIS_URL")
KAFKA_BOOTSTRAP_SERVERS = env_text("KAFKA_BOOTSTRAP_SERVERS")
# How to get in, where Kafka asks for more than its address.
KAFKA_SECURITY_PROTOCOL = env_choice(
    "KAFKA_SECURITY_PROTOCOL", "PLAINTEXT", allowed=("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
)
KAFKA_SASL_MECHANISM = env_choice(
    "KAFKA_SASL_MECHANISM", "PLAIN", allowed=("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
)
KAFKA_SASL_USERNAME = env_text("KAFKA_SASL_USERNAME")
KAFKA_SASL_PASSWORD = env_text("KAFKA_SASL_PASSWORD")
# A file of the certificates that are trusted, in place of the system's.
KAFKA_CA_FILE = env_certificates("KAFKA_CA_FILE")
KAFKA_CERTIFICATE_FILE = env_text("KAFKA_CERTIFICATE_FILE")
KAFKA_KEY_FILE = env_text("KAFKA_KEY_FILE")
KAFKA_KEY_PASSWORD = env_text("KAFKA_KEY_PASSWORD")
KAFKA_TOPIC = env_text("KAFKA_TOPIC", "price-events")
KAFKA_PARTITIONS = env_int("KAFKA_PARTITIONS", 12, minimum=1, maximum=1000)
KAFKA_CONSUMER_GROUP = env_text("KAFKA_CONSUMER_GROUP", "symbol-averages")
KAFKA_GROUP_PROTOCOL = env_choice("KAFKA_GROUP_PROTOCOL", "classic", allowed=("classic", "consumer"))
# At so many megabytes of dead letters the consumer waits until some are replayed and discarded.
DEAD_LETTERS_MAX_MB = env_int("DEAD_LETTERS_MAX_MB", 1_000, minimum=1, maximum=1_000_000)

# --- Providers ------------------------------------------------------------------------------------

ALPHA_VANTAGE_API_KEY = env_text("ALPHA_VANTAGE_API_KEY")
FINNHUB_API_KEY = env_text("FINNHUB_API_KEY")
ALPHA_VANTAGE_BASE_URL = env_text("ALPHA_VANTAGE_BASE_URL", "https://www.alphavantage.co")
FINNHUB_BASE_URL = env_text("FINNHUB_BASE_URL", "https://finnhub.io")
YAHOO_BASE_URL = env_text("YAHOO_BASE_URL")
# Who is asked where no provider is named: for a job the first that is configured, for a call one after
# the other.
PROVIDER_ORDER = env_list("PROVIDER_ORDER", "finnhub,yfinance,alpha_vantage")
PROVIDER_TIMEOUT_S = env_int("PROVIDER_TIMEOUT_S", 10, minimum=1, maximum=120)
# The proxy by which the providers are reached; those of the environment are not read.
PROVIDER_PROXY = env_proxy("PROVIDER_PROXY")
# A file of certificates that are trusted besides the public ones.
PROVIDER_CA_FILE = env_certificates("PROVIDER_CA_FILE")

# Requests that each provider allows, by all processes together: N/window with ms, s, m, h or d; or none.
# Alpha Vantage and Finnhub: their free plans. Yahoo tells no limit; users of yfinance are refused after
# bursts of a hundred and at some 2,000 requests an hour, so this stays below both.
PROVIDER_BUDGETS = {
    "alpha_vantage": env_budget("ALPHA_VANTAGE_BUDGET", "1/1s,25/1d"),
    "finnhub": env_budget("FINNHUB_BUDGET", "30/1s,60/1m"),
    "yfinance": env_budget("YAHOO_BUDGET", "2/1s,30/1m"),
    "simulated": "none",
}
# What GET /prices/latest may take of a budget that is counted by the day or longer.
LATEST_BUDGET_SHARE_PERCENT = env_int("LATEST_BUDGET_SHARE_PERCENT", 20, minimum=0, maximum=100)
# A symbol that a provider does not know is not asked for again for so long.
UNKNOWN_SYMBOL_MEMORY_S = env_int("UNKNOWN_SYMBOL_MEMORY_S", 300, minimum=0, maximum=86_400)
# Whether a job that the budget does not carry in full, or whose key is missing, is refused.
QUOTA_STRICT = env_bool("QUOTA_STRICT", default=False)
# A provider that fails this often in a row is not asked for a while, which grows up to the longest one.
BREAKER_FAILURES = env_int("BREAKER_FAILURES", 5, minimum=1, maximum=1000)
# The longest is below the interval of most jobs: after an outage each polls within its next interval.
BREAKER_MAX_COOLDOWN_S = env_int("BREAKER_MAX_COOLDOWN_S", 4, minimum=1, maximum=3600)

# --- Polling, outbox, latest ----------------------------------------------------------------------

# A claimed slot without an outcome after this long was cut off: its worker died.
POLL_DEADLINE_S = env_int("POLL_DEADLINE_S", 120, minimum=1, maximum=3600)
OUTBOX_SWEEP_AFTER_S = env_int("OUTBOX_SWEEP_AFTER_S", 5, minimum=1, maximum=3600)
# The first password of the user `admin`; without it one is made up and shown once.
ADMIN_PASSWORD = env_text("ADMIN_PASSWORD")

LATEST_REUSE_S = env_int("LATEST_REUSE_S", 15, minimum=0, maximum=3600)
# Half of the web server's threads may wait: the rest go on answering what is stored. As many fetches run from
# each provider, in threads of their own.
LATEST_MAX_FETCHES = env_int("LATEST_MAX_FETCHES", 8, minimum=1, maximum=1000)
LATEST_DEADLINE_S = env_int("LATEST_DEADLINE_S", 5, minimum=1, maximum=60)

# --- Celery ---------------------------------------------------------------------------------------

CELERY_BROKER_URL = REDIS_URL
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # By default a copy of each message lies in Redis until it is acknowledged, and comes again after an hour:
    # by then it has expired. And a worker that holds such messages when Redis goes away dies of giving them
    # back.
    "ack_emulation": False,
    # A Redis that vanished closes no connection: one whose answer is overdue by so many seconds is given up.
    "health_check_interval": 5,
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
}
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_DEFAULT_QUEUE = "maintenance"
# A queue is a list of Redis and nothing else: declared, it would need writes at a worker's start too, and a
# Redis that is full of messages would have no new worker to take them.
CELERY_TASK_QUEUES = [
    Queue(name, no_declare=True) for name in ("maintenance", *(f"poll.{name}" for name in PROVIDER_BUDGETS))
]
CELERY_TASK_TIME_LIMIT = None
CELERY_WORKER_CONSUMER = "marketdata.worker:PatientConsumer"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# Only tasks that are acknowledged late are cancelled, and there are none: said, so that Celery does not ask.
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
# Nobody commands workers through Redis, and nobody listens to what they would tell there.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_REDIRECT_STDOUTS = False
CELERY_BEAT_SCHEDULER = "prices.scheduling.scheduler:PriceScheduler"
# A new job's first poll waits at most this long for beat to see it.
CELERY_BEAT_MAX_LOOP_INTERVAL = 1
CELERY_TIMEZONE = "UTC"
# None expires: a worker compares that with its own clock. What waits is done once and found done after that.
CELERY_BEAT_SCHEDULE = {
    "sweep outbox": {
        "task": "prices.tasks.sweep_outbox",
        "schedule": 1.0,
        "options": {"queue": "maintenance", "expire_seconds": None},
    },
    "abandon overdue polls": {
        "task": "prices.tasks.abandon_overdue_runs",
        "schedule": 10.0,
        "options": {"queue": "maintenance", "expire_seconds": None},
    },
    "account for slots": {
        "task": "prices.tasks.account_slots",
        "schedule": 10.0,
        "options": {"queue": "maintenance", "expire_seconds": None},
    },
    "drop expired messages": {
        "task": "prices.tasks.drop_expired_messages",
        "schedule": 60.0,
        "options": {"queue": "maintenance", "expire_seconds": None},
    },
    "make bars": {
        "task": "prices.tasks.make_bars",
        "schedule": 10.0,
        "options": {"queue": "maintenance", "expire_seconds": None},
    },
    "make partitions": {
        "task": "prices.tasks.make_partitions",
        # What could not be locked is tried again soon; where all are there, this is a look.
        "schedule": crontab(minute="7-59/10"),
        "options": {"queue": "maintenance", "expire_seconds": None},
    },
    "merge partitions": {
        "task": "prices.tasks.merge_partitions",
        "schedule": crontab(minute="17"),
        "options": {"queue": "maintenance", "expire_seconds": None},
    },
    "delete expired idempotency keys": {
        "task": "prices.tasks.delete_expired_idempotency_keys",
        "schedule": crontab(minute="27"),
        "options": {"queue": "maintenance", "expire_seconds": None},
    },
    "delete old batches": {
        "task": "prices.tasks.delete_old_batches",
        "schedule": crontab(minute="37"),
        "options": {"queue": "maintenance", "expire_seconds": None},
    },
    "drop old runs": {
        "task": "prices.tasks.drop_old_runs",
        "schedule": crontab(minute="47"),
        "options": {"queue": "maintenance", "expire_seconds": None},
    },
}

# --- REST -----------------------------------------------------------------------------------------

# open: whoever reaches the service may call it; keys: who has a key of `manage.py api_key`, or a session.
API_AUTH = env_choice("API_AUTH", "open", allowed=("open", "keys"))
# Where keys are needed: requests that are answered of each key, and of each address without a valid one.
API_RATE = env_rate("API_RATE", "6000/1m")
API_RATE_WITHOUT_KEY = env_rate("API_RATE_WITHOUT_KEY", "60/1m")

# The ports at which clients reach the web server and the stream's, and the stream's address where that is
# another one.
PORT = env_int("PORT", 8000, minimum=1, maximum=65_535)
STREAM_PORT = env_int("STREAM_PORT", 8001, minimum=1, maximum=65_535)
STREAM_URL = env_text("STREAM_URL")

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["prices.api.access.authentication.KeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["prices.api.access.permission.ScopePermission"],
    "UNAUTHENTICATED_USER": None,
    "DEFAULT_PARSER_CLASSES": ["prices.api.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["prices.api.renderers.ExactJSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "prices.api.renderers.AlwaysJSON",
    "EXCEPTION_HANDLER": "prices.api.errors.problem_response",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Market data service",
    "DESCRIPTION": (
        "Polls price providers, keeps every answer, and serves exact moving averages.\n\n"
        "- Prices are JSON numbers with all digits that the provider gave.\n"
        "- Times are UTC and end in `Z`. `observed_at` is the provider's own, `received_at` when its answer"
        " came here.\n"
        "- Ids are UUIDs of version 7: they sort by time.\n"
        "- Where a call knows no such parameter or field, or is given one twice, it says so (400).\n"
        "- Every error is `application/problem+json` (RFC 9457): `type` names it for programs, `detail` tells"
        " people.\n"
        "- An address may end in a slash."
    ),
    "VERSION": VERSION,
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["prices.api.access.permission.ScopePermission"],
    "TAGS": [
        {"name": "prices", "description": "The latest price, stored ones, and jobs that poll them."},
        {"name": "averages", "description": "5-point moving averages."},
        {"name": "jobs", "description": "What is polled, and what became of it."},
        {"name": "symbols", "description": "What is known."},
        {"name": "providers", "description": "Who is asked, and what is left of their budgets."},
        {"name": "raw", "description": "What providers answered."},
    ],
    # In the order in which they stand in the code.
    "SORT_OPERATIONS": False,
    "SORT_OPERATION_PARAMETERS": False,
    "COMPONENT_SPLIT_PATCH": False,
    "PREPROCESSING_HOOKS": ["prices.api.schema.hooks.without_trailing_slashes"],
    "POSTPROCESSING_HOOKS": ["prices.api.schema.access.with_refusals", "prices.api.schema.hooks.complete"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "defaultModelsExpandDepth": 0},
}

# --- Logs -----------------------------------------------------------------------------------------

LOG_LEVEL = env_choice("LOG_LEVEL", "INFO", allowed=("DEBUG", "INFO", "WARNING", "ERROR"))
LOG_FORMAT = env_choice("LOG_FORMAT", "text", allowed=("text", "json"))
LOGGING_CONFIG = None
configure_logging(level=LOG_LEVEL, as_json=LOG_FORMAT == "json")
