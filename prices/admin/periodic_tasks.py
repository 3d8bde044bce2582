"""Periodic tasks: as django-celery-beat has them, but those of poll jobs follow their jobs."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django_celery_beat.admin import PeriodicTaskAdmin
from django_celery_beat.models import PeriodicTask
from kombu.exceptions import OperationalError

from prices.models import PollJob
from providers.rate_limits.redis_errors import redis_problem

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[PeriodicTask]
else:
    ModelForm = forms.ModelForm


class SwitchForm(ModelForm):
    """What can be changed of a poll job's task: whether it is enabled."""


class JobTaskAdmin(PeriodicTaskAdmin):  # type: ignore[misc]  # django-celery-beat has no types
    """Periodic tasks; of a poll job's the rest would be taken without having any effect."""

    switch_fieldsets = (
        (
            None,
            {
                "fields": ("name", "enabled", "polled_by"),
                "description": "It follows its job, which is where the interval is changed. Disabled here,"
                " the job is not polled until it is enabled or resumed.",
            },
        ),
    )

    def get_form(
        self, request: HttpRequest, obj: PeriodicTask | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        """Return the form of a poll job's task, or the one of any other."""
        if _job_of(obj) is not None:
            kwargs["form"] = SwitchForm
        return super().get_form(request, obj, change=change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: PeriodicTask | None = None) -> Any:
        """Return what a page shows."""
        return super().get_fieldsets(request, obj) if _job_of(obj) is None else self.switch_fieldsets

    def get_readonly_fields(self, request: HttpRequest, obj: PeriodicTask | None = None) -> Any:
        """Return what a page shows and does not change."""
        if _job_of(obj) is None:
            return super().get_readonly_fields(request, obj)
        return ("name", "polled_by")

    @admin.action(description="Run selected tasks")
    def run_tasks(self, request: HttpRequest, queryset: QuerySet[PeriodicTask]) -> None:
        """Send the tasks to their workers, or say what keeps Redis from taking them."""
        try:
            super().run_tasks(request, queryset)
        except OperationalError as error:
            self.message_user(request, f"Not all were sent: Redis {redis_problem(error)}.", messages.ERROR)

    @admin.display(description="poll job")
    def polled_by(self, task: PeriodicTask) -> SafeString:
        """Return the way to the job."""
        job = task.poll_job
        return format_html('<a href="{}">{}</a>', reverse("admin:prices_polljob_change", args=[job.id]), job)


def _job_of(task: PeriodicTask | None) -> PollJob | None:
    return getattr(task, "poll_job", None)


admin.site.unregister(PeriodicTask)
admin.site.register(PeriodicTask, JobTaskAdmin)
