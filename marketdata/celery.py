"""The Celery application; each worker's heartbeat tells that its loop turns."""

import os
from typing import Any

from celery import Celery, bootsteps, platforms, signals
from celery.apps import beat

from prices.heartbeat import touch_heartbeat
from providers.warm_up import warm_up

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketdata.settings")

HEARTBEAT_S = 2.0
# A Redis that hangs may not hold beat for longer than it keeps its lead without a renewal: so long at a time,
# and up to three times for a message that is sent and tried once more.
BEAT_WAITS_FOR_REDIS_S = 0.4
BEAT_TRIES_AGAIN = {"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}


class Heartbeat(bootsteps.StartStopStep):
    """Touch the file named after the worker (`maintenance@host`: maintenance) while its event loop turns."""

    requires = ("celery.worker.components:Timer",)

    def start(self, parent: Any) -> None:
        """Begin with the worker."""
        # Models can be imported once the applications are loaded.
        from prices.clock import name_process

        name = parent.hostname.partition("@")[0]
        name_process(name)
        self.entry = parent.timer.call_repeatedly(HEARTBEAT_S, touch_heartbeat, (name,))

    def stop(self, parent: Any) -> None:
        """End with the worker."""
        self.entry.cancel()


@signals.celeryd_after_setup.connect
def warm_up_worker(instance: Any, **_: object) -> None:
    """Import what the providers of the worker's queues take, before it polls."""
    # Here and not above: it needs Django's models, and they are there once the worker has begun.
    from prices.jobs.services import provider_of_queue

    queues = instance.app.amqp.queues.consume_from
    warm_up([name for name in map(provider_of_queue, queues) if name is not None])


class GentleBeat(beat.Beat):
    """Beat that ends after its tick when it is asked to, and does not hang with Redis.

    Celery's own writes the schedule inside the signal handler, in the middle of whatever query runs.
    """

    def run(self) -> None:
        """Run, with time-outs that the workers, which wait for messages, do not need."""
        conf = app.conf
        timeouts = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), BEAT_WAITS_FOR_REDIS_S)
        conf.broker_transport_options = conf.broker_transport_options | timeouts
        conf.task_publish_retry_policy = BEAT_TRIES_AGAIN
        super().run()

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
