"""The admin: every table to look at; jobs to pause, resume and stop. Evidence is read-only."""

from django.contrib import admin

from prices.admin.api_keys import ApiKeyAdmin
from prices.admin.dead_letters import DeadLetterAdmin
from prices.admin.jobs import PollJobAdmin
from prices.admin.periodic_tasks import JobTaskAdmin
from prices.admin.polls import PollGapAdmin, PollRunAdmin
from prices.admin.prices import PricePointAdmin, RawMarketDataAdmin, SymbolAverageAdmin

admin.site.site_title = "Market data service"
admin.site.site_header = "Market data service (times in UTC)"
admin.site.index_title = "Tables"

__all__ = [
    "ApiKeyAdmin",
    "DeadLetterAdmin",
    "JobTaskAdmin",
    "PollGapAdmin",
    "PollJobAdmin",
    "PollRunAdmin",
    "PricePointAdmin",
    "RawMarketDataAdmin",
    "SymbolAverageAdmin",
]
