"""The view of the providers."""

from django.http import HttpRequest

from prices.access.rights import Access
from prices.clock import recent_now
from prices.pages.page import Shown, page
from prices.pages.providers.outcomes import MOST_REQUESTS, read_last_hour
from prices.pages.providers.standing import read_standings
from prices.pages.providers.users import read_users
from providers.registry import PROVIDER_NAMES


@page
def providers(request: HttpRequest, access: Access) -> Shown:
    """Show which providers can be asked, what is left of their budgets, and for whom it goes."""
    now = recent_now()
    last_hour = read_last_hour(PROVIDER_NAMES, now=now)
    users = read_users(PROVIDER_NAMES, now=now, access=access)
    shown = [
        {"standing": standing, "last_hour": last_hour[standing.provider], "users": users[standing.provider]}
        for standing in read_standings(PROVIDER_NAMES)
    ]
    return "pages/providers.html", {"providers": shown, "now": now, "most_requests": MOST_REQUESTS}
