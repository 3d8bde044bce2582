"""The REST addresses, each with a trailing slash and without."""

from django.urls import URLPattern, re_path
from django.views import View

from prices.api.fields import UUID_PATTERN
from prices.api.views.evidence import PriceView, RawAnswerView
from prices.api.views.history import AveragesView, BarsView, HistoryView, NewestAveragesView
from prices.api.views.jobs import JobsView, JobView, PauseView, PollView, ResumeView, StopView
from prices.api.views.ledger import GapsView, RunsView
from prices.api.views.prices import LatestView, ProvidersView
from prices.api.views.symbols import SymbolsView


def either(pattern: str, view: type[View], name: str) -> URLPattern:
    """Route an address with or without a trailing slash."""
    return re_path(rf"^{pattern}/?$", view.as_view(), name=name)


urlpatterns = [
    either("prices/latest", LatestView, "latest"),
    either("prices/bars", BarsView, "bars"),
    either("prices/history", HistoryView, "history"),
    either("prices/poll", PollView, "poll"),
    either("prices/stop", StopView, "stop"),
    either(f"prices/(?P<event_id>{UUID_PATTERN})", PriceView, "price"),
    either(f"raw/(?P<raw_response_id>{UUID_PATTERN})", RawAnswerView, "raw_answer"),
    either("averages", AveragesView, "averages"),
    either("averages/latest", NewestAveragesView, "newest_averages"),
    either("symbols", SymbolsView, "symbols"),
    either("providers", ProvidersView, "providers"),
    either("jobs", JobsView, "jobs"),
    either(f"jobs/(?P<job_id>{UUID_PATTERN})", JobView, "job"),
    either(f"jobs/(?P<job_id>{UUID_PATTERN})/pause", PauseView, "pause"),
    either(f"jobs/(?P<job_id>{UUID_PATTERN})/resume", ResumeView, "resume"),
    either(f"jobs/(?P<job_id>{UUID_PATTERN})/runs", RunsView, "runs"),
    either(f"jobs/(?P<job_id>{UUID_PATTERN})/gaps", GapsView, "gaps"),
]
