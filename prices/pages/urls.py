"""The addresses of the pages; what programs call is in prices/api/urls.py."""

from django.urls import path, re_path

from prices.pages.overview.views import overview
from prices.pages.providers.views import providers
from prices.pages.symbol.views import symbol

urlpatterns = [
    path("", overview, name="overview"),
    re_path(r"^pages/symbols/(?P<symbol>.+)$", symbol, name="symbol"),
    re_path(r"^pages/providers/?$", providers, name="providers"),
]
