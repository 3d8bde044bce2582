"""Django's WSGI application, which asgi.py serves, and which `runserver` runs."""

import os

from django.core.wsgi import get_wsgi_application

from providers.registry import PROVIDER_NAMES
from providers.warm_up import warm_up_in_background

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketdata.settings")

application = get_wsgi_application()

# Models can be imported once the applications are loaded.
from prices.clock import name_process  # noqa: E402

name_process("web")
warm_up_in_background(PROVIDER_NAMES)
