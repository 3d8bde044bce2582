"""The addresses of the pages; what programs call is in prices/api/urls.py."""

from django.urls import path, re_path

from prices.api.fields import UUID_PATTERN
from prices.pages.jobs.views import job, jobs, new_job
from prices.pages.overview.views import overview
from prices.pages.providers.views import providers
from prices.pages.symbol.views import symbol

urlpatterns = [
    path("", overview, name="overview"),
    re_path(r"^pages/symbols/(?P<symbol>.+)$", symbol, name="symbol"),
    re_path(r"^pages/jobs/?$", jobs, name="jobs-page"),
    re_path(r"^pages/jobs/new/?$", new_job, name="new-job"),
    re_path(rf"^pages/jobs/(?P<job_id>{UUID_PATTERN})/?$", job, name="job-page"),
    re_path(r"^pages/providers/?$", providers, name="providers-page"),
]
