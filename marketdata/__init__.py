"""The Django project of the market data service."""

from marketdata.celery import app as celery_app

__all__ = ["__version__", "celery_app"]

# The one place: pyproject.toml, the OpenAPI description, /livez and `manage.py --version` have it from here.
__version__ = "0.1.0"
