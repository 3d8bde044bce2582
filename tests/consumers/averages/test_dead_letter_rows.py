"""The room of dead letters: at its end the consumer waits, drops nothing, and goes on once there is some."""

import os

import pytest
from django.db import connection
from django.test import override_settings
from pytest_django import Settings

from consumers.averages.dead_letter_rows import DeadLettersFullError, check_room
from consumers.averages.store import AverageStore, StoreUnavailableError
from consumers.handler import AverageHandler
from prices.models import DeadLetter, SymbolAverage
from tests.consumers.running import running, send_parts
from tests.consumers.samples import BEGIN, EventStore, assert_averages_right, event, message
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
FULL = "and DEAD_LETTERS_MAX_MB allows 1: mend what sends"


@pytest.fixture(autouse=True)
def one_megabyte(settings: Settings) -> None:
    settings.DEAD_LETTERS_MAX_MB = 1


def letter(offset: int, *, size_bytes: int = 600_000) -> DeadLetter:
    return DeadLetter(
        topic="t",
        partition=0,
        offset=offset,
        message_timestamp=BEGIN,
        group="g",
        # Bytes that PostgreSQL cannot make smaller.
        value=os.urandom(size_bytes),
        headers=[],
        reason="test",
    )


def look() -> None:
    with connection.cursor() as cursor:
        check_room(cursor)


def test_batch_is_refused_whole_while_there_is_no_room(store: EventStore) -> None:
    letters = [letter(number) for number in range(3)]
    store.write([event(0)], letters[:2])
    with pytest.raises(StoreUnavailableError, match=FULL):
        store.write([event(1)], letters[2:])
    store.write([event(2)])
    assert_averages_right([event(0), event(2)])
    DeadLetter.objects.filter(offset=1).delete()
    store.write([event(1)], letters[2:])
    assert sorted(DeadLetter.objects.values_list("offset", flat=True)) == [0, 2]
    assert_averages_right([event(0), event(1), event(2)])


def test_many_small_letters_fill_the_room_too() -> None:
    look()
    DeadLetter.objects.bulk_create(letter(number, size_bytes=1) for number in range(8_000))
    with pytest.raises(DeadLettersFullError, match=FULL):
        look()


def test_headers_and_keys_count() -> None:
    for number in range(2):
        big = letter(number, size_bytes=0)
        big.key, big.headers = os.urandom(300_000), [[b"a", os.urandom(300_000)]]
        big.save()
    with pytest.raises(DeadLettersFullError):
        look()


@pytest.mark.usefixtures("topic", "heartbeats")
def test_consumer_waits_and_goes_on_once_there_is_room() -> None:
    send_parts(message(0), *(message(n, value=os.urandom(400_000)) for n in range(1, 6)), message(6))
    with running(AverageHandler(AverageStore())):
        wait_until(lambda: DeadLetter.objects.count() >= 3)
        while SymbolAverage.objects.count() < 2:
            DeadLetter.objects.all().delete()
    assert_averages_right([event(0), event(6)])


def test_room_is_a_setting() -> None:
    letter(0).save()
    letter(1).save()
    with pytest.raises(DeadLettersFullError, match=FULL):
        look()
    with override_settings(DEAD_LETTERS_MAX_MB=2):
        look()
