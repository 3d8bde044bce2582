"""What makes the second start of Kafka fast: it is recorded once, and in nobody's way when it is damaged."""

from pathlib import Path

import psutil
import pytest

from dev.embedded.kafka import ApacheKafka, answers
from dev.embedded.parts import Paths
from dev.embedded.start_cache import StartCache
from dev.guardian import Guardian
from dev.pytest_services import Services

LIBS = Paths(Path()).libs
PROGRAM = ["java 25", "some.jar"]


@pytest.fixture
def cache(tmp_path: Path) -> StartCache:
    return make_cache(tmp_path, PROGRAM)


def make_cache(folder: Path, program: list[str]) -> StartCache:
    libs, run = folder / "libs", folder / "run"
    libs.mkdir(exist_ok=True)
    run.mkdir(exist_ok=True)
    return StartCache(libs, program, draft=run / "start.aot")


def test_first_run_records_and_the_next_one_uses_it(cache: StartCache) -> None:
    assert cache.use() == []
    assert cache.use_or_record() == ["-XX:AOTCacheOutput=start.aot"]
    cache.draft.write_bytes(b"classes")

    cache.keep(143)

    assert cache.path.read_bytes() == b"classes"
    assert cache.use_or_record() == cache.use() == [f"-XX:AOTCache={cache.path}", "-XX:+VerifySharedSpaces"]
    assert not cache.draft.exists()


@pytest.mark.parametrize("returncode", [-9, 1])
def test_run_that_ended_badly_leaves_none(cache: StartCache, returncode: int) -> None:
    cache.draft.write_bytes(b"half")
    cache.keep(returncode)
    assert cache.use() == []
    assert not cache.draft.exists()


def test_run_that_recorded_nothing_keeps_the_one_there(cache: StartCache) -> None:
    cache.path.write_bytes(b"classes")
    cache.keep(143)
    assert cache.path.read_bytes() == b"classes"


def test_cache_for_which_there_is_no_room_is_left_out(tmp_path: Path, cache: StartCache) -> None:
    cache.draft.write_bytes(b"classes")
    (tmp_path / "libs").rmdir()
    cache.keep(143)
    assert cache.use() == []
    assert not cache.draft.exists()


def test_cache_of_another_version_goes(tmp_path: Path, cache: StartCache) -> None:
    cache.path.write_bytes(b"old")
    newer = make_cache(tmp_path, ["java 26", "some.jar"])
    assert newer.use() == []
    newer.draft.write_bytes(b"new")
    newer.keep(0)
    assert [path.name for path in newer.folder.glob("start-*")] == [newer.path.name]
    assert cache.use() == []


@pytest.fixture
def recorded(services: Services) -> Path:
    """Return the cache that the first stop of Kafka in this checkout leaves."""
    if not list(LIBS.glob("start-*.aot")):
        services.kafka.stop()
        services.kafka.start()
    (path,) = LIBS.glob("start-*.aot")
    return path


@pytest.mark.skipif(not psutil.LINUX, reason="only Linux tells which files a process has mapped")
def test_restarted_kafka_uses_what_was_recorded(services: Services, recorded: Path) -> None:
    services.kafka.stop()
    services.kafka.start()
    assert str(recorded) in {each.path for each in psutil.Process(services.kafka.pid).memory_maps()}


def test_damaged_cache_keeps_kafka_from_nothing(tmp_path: Path, guardian: Guardian, recorded: Path) -> None:
    libs = tmp_path / "libs"
    libs.mkdir()
    for jar in LIBS.glob("*.jar"):
        (libs / jar.name).symlink_to(jar)
    content = bytearray(recorded.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 100_000] = b"x" * 100_000
    (libs / recorded.name).write_bytes(content)
    folder = tmp_path / "kafka"
    kafka = ApacheKafka(folder, logs=tmp_path, guardian=guardian, libs=libs, say=print)
    assert kafka.starts_fast
    kafka.start()
    try:
        assert answers(kafka.address)
        assert "Unable to map shared spaces" in kafka.log.read_text()
    finally:
        kafka.stop()
