"""Rows of symbol_averages that may not change: each one is right when it is written."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

_RAISE_WHERE_A_ROW_CHANGES = """
CREATE FUNCTION no_change() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'a stored average changes'; END $$;
CREATE TRIGGER no_change BEFORE UPDATE ON symbol_averages FOR EACH ROW EXECUTE FUNCTION no_change();
"""


@contextmanager
def unchanging_rows() -> Iterator[None]:
    """Refuse each change of a row that is stored: an average that was over a hole could not be mended."""
    with connection.cursor() as cursor:
        cursor.execute(_RAISE_WHERE_A_ROW_CHANGES)
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER no_change ON symbol_averages; DROP FUNCTION no_change")
