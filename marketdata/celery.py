"""The Celery application; each worker's heartbeat tells that its loop turns."""

import os
from typing import Any

from celery import Celery, bootsteps

from prices.heartbeat import touch_heartbeat

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketdata.settings")

HEARTBEAT_S = 2.0


class Heartbeat(bootsteps.StartStopStep):
    """Touch the file named after the worker (`upkeep@host`: upkeep) while its event loop turns."""

    requires = ("celery.worker.components:Timer",)

    def start(self, parent: Any) -> None:
        """Begin with the worker."""
        name = parent.hostname.partition("@")[0]
        self.entry = parent.timer.call_repeatedly(HEARTBEAT_S, touch_heartbeat, (name,))

    def stop(self, parent: Any) -> None:
        """End with the worker."""
        self.entry.cancel()


app = Celery("marketdata")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.steps["worker"].add(Heartbeat)
