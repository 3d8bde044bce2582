"""What a test has committed is gone before the next one, whoever wrote it."""

from contextlib import closing
from threading import Thread

import psycopg
import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connection

from prices.models import PollRun
from tests.conftest import MakeJob
from tests.emptying import KEPT, empty_tables
from tests.prices.slots_of_a_job import add_runs
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def rows() -> dict[str, int]:
    names = [name for name in connection.introspection.table_names() if name not in KEPT]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(f"SELECT '{name}', count(*) FROM {name}" for name in names))
        return {name: count for name, count in cursor.fetchall() if count}


def epoch() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT last_value FROM averages_epoch")
        return int(cursor.fetchone()[0])


@pytest.mark.parametrize("turn", ["first", "second"])
def test_rows_of_another_test_are_gone(make_job: MakeJob, turn: str) -> None:
    assert rows() == {}
    add_runs(make_job(), "sfk")
    User.objects.create_user("somebody")
    assert {"poll_jobs", "poll_runs", "auth_user", "django_celery_beat_periodictask"} <= rows().keys()


def test_what_migrations_wrote_stays(make_job: MakeJob) -> None:
    before = epoch(), ContentType.objects.count(), Permission.objects.count()
    make_job()
    empty_tables()
    assert (epoch(), ContentType.objects.count(), Permission.objects.count()) == before
    assert before[1:] > (0, 0)


def test_many_rows_are_gone_too(make_job: MakeJob) -> None:
    add_runs(make_job(), "s" * 20_000)
    empty_tables()
    assert rows() == {}
    assert PollRun.objects.count() == 0


def test_rows_of_a_transaction_under_way_are_waited_for() -> None:
    with psycopg.connect(**connection.get_connection_params()) as writer:
        writer.execute("INSERT INTO auth_group (name) VALUES ('late')")
        emptying = Thread(target=empty_in_a_thread)
        emptying.start()
        wait_until(someone_waits, what="the emptying waits")
        writer.commit()
        emptying.join(60)
    assert rows() == {}


def empty_in_a_thread() -> None:
    with closing(connection):
        empty_tables()


def someone_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
        return bool(cursor.fetchone()[0])
