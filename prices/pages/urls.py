"""The addresses of the pages; what programs call is in prices/api/urls.py."""

from django.urls import path

from prices.pages.overview.views import overview

urlpatterns = [path("", overview, name="overview")]
