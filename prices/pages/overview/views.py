"""The view of the overview."""

from uuid import uuid4

from django.http import HttpRequest

from prices.access.rights import Access
from prices.clock import recent_now
from prices.pages.changing import may_change
from prices.pages.overview.rows import read_overview
from prices.pages.overview.sparkline import BARS, HEIGHT, WIDTH
from prices.pages.page import Shown, page
from prices.symbols import normalise_symbol


@page
def overview(request: HttpRequest, access: Access) -> Shown:
    """Show the symbols with their last prices, and how far each can be trusted."""
    asked = request.GET.get("q", "").strip()
    part, now = normalise_symbol(asked) if asked else "", recent_now()
    after = normalise_symbol(request.GET.get("after", "")) or ""
    shown = None if part is None else read_overview(part=part, after=after, now=now, access=access)
    picture = {"width": WIDTH, "height": HEIGHT, "bars": BARS}
    form = {"may_change": may_change(request), "once": uuid4()}
    return "pages/overview.html", {"asked": asked, "overview": shown, "now": now, **picture, **form}
