"""The REST addresses, each with a trailing slash and without."""

from django.urls import URLPattern, re_path
from django.views import View

from prices.api.views import AveragesView, JobsView, JobView, LatestView, PollView, StopView

UUID_PATTERN = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"


def either(pattern: str, view: type[View], name: str) -> URLPattern:
    """Route an address with or without a trailing slash."""
    return re_path(rf"^{pattern}/?$", view.as_view(), name=name)


urlpatterns = [
    either("prices/latest", LatestView, "latest"),
    either("prices/poll", PollView, "poll"),
    either("prices/stop", StopView, "stop"),
    either("averages", AveragesView, "averages"),
    either("jobs", JobsView, "jobs"),
    either(f"jobs/(?P<job_id>{UUID_PATTERN})", JobView, "job"),
]
