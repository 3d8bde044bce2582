"""The web application that the API is measured against: Django alone, without middleware.

`/redis` reads one value of Redis, `/rows` a thousand averages of PostgreSQL, encoded as the service's own.
"""

import os
import threading

import django
import msgspec
import psycopg
import redis
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path

KEY = os.environ["BARE_KEY"]
_READ = """
    SELECT event_id, symbol, price, average, observed_at FROM symbol_averages
    ORDER BY event_id DESC LIMIT 1000
"""

settings.configure(ROOT_URLCONF=__name__, MIDDLEWARE=[], ALLOWED_HOSTS=["*"], SECRET_KEY="bare")
django.setup()

_redis = redis.Redis.from_url(os.environ["REDIS_URL"])
_threads = threading.local()
_encoder = msgspec.json.Encoder(decimal_format="number")


def read_redis(request: HttpRequest) -> HttpResponse:
    """Answer with the value that lies in Redis."""
    return HttpResponse(_redis.get(KEY), content_type="application/json")


def read_rows(request: HttpRequest) -> HttpResponse:
    """Answer with the newest averages."""
    names = ("event_id", "symbol", "price", "average", "observed_at")
    rows = [dict(zip(names, row, strict=True)) for row in _connection().execute(_READ)]
    return HttpResponse(_encoder.encode({"results": rows}), content_type="application/json")


def _connection() -> psycopg.Connection[tuple[object, ...]]:
    if not hasattr(_threads, "connection"):
        _threads.connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
    connection: psycopg.Connection[tuple[object, ...]] = _threads.connection
    return connection


urlpatterns = [path("redis", read_redis), path("rows", read_rows)]

# Last: it loads the addresses above.
from django.core.wsgi import get_wsgi_application  # noqa: E402

application = get_wsgi_application()
