"""The ASGI application that the web server runs."""

# First, as it loads the applications, whose models can be imported then.
from marketdata.wsgi import application as django_application  # isort: skip

from marketdata.bridge import Bridge

# As many requests are answered at a time; of these LATEST_MAX_FETCHES (8) may wait for providers.
THREADS = 16

application = Bridge(django_application, threads=THREADS)
