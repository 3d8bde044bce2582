"""Django's own pages of errors, which DEBUG shows: settings and variables that hold passwords are hidden."""

import re

from django.views.debug import SafeExceptionReporterFilter


class ErrorPageFilter(SafeExceptionReporterFilter):
    """Hides the addresses of servers as well: any of them may have a password in it."""

    hidden_settings = re.compile(
        f"{SafeExceptionReporterFilter.hidden_settings.pattern}|PROXY|URL", re.IGNORECASE
    )
