"""The Celery application; each worker's heartbeat tells that its loop turns."""

import os
from typing import Any

from celery import Celery, bootsteps, platforms
from celery.apps import beat

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


class GentleBeat(beat.Beat):
    """Beat that ends after its tick when it is asked to.

    Celery's own writes the schedule inside the signal handler, in the middle of whatever query runs.
    """

    def install_sync_handler(self, service: Any) -> None:
        """End the service on SIGTERM and SIGINT: on its way out it writes when each task last ran."""

        def stop(_number: int, _frame: object) -> None:
            service.stop()

        platforms.signals.update(SIGTERM=stop, SIGINT=stop)


app = Celery("marketdata")
app.Beat = app.subclass_with_self(GentleBeat)  # type: ignore[misc]  # how Celery has it replaced
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.steps["worker"].add(Heartbeat)
