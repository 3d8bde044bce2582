"""Wait until a time of day with one function of the C library: `python waits.py FUNCTION SECONDS`.

Prints the answer of the function and how many seconds passed, by the monotonic clock.
"""

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
REALTIME = 0
TIMER_ABSTIME = 1


class Timespec(ctypes.Structure):
    """A time in seconds and nanoseconds."""

    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class TimerSpec(ctypes.Structure):
    """How often a timer ends, and when first."""

    _fields_ = [("interval", Timespec), ("value", Timespec)]


def zeroed() -> Any:
    # As large as any of semaphore, mutex, condition and lock; zeroed, each is a new one.
    return ctypes.create_string_buffer(64)


def locked_mutex() -> Any:
    mutex = zeroed()
    LIBC.pthread_mutex_lock(mutex)
    return mutex


def written_lock() -> Any:
    lock = zeroed()
    # Its owner would not be let wait for it.
    owner = threading.Thread(target=LIBC.pthread_rwlock_wrlock, args=[lock])
    owner.start()
    owner.join()
    return lock


def wait_for_timer(deadline: Any) -> int:
    timer = LIBC.timerfd_create(REALTIME, 0)
    setting = TimerSpec(value=deadline)
    result: int = LIBC.timerfd_settime(timer, TIMER_ABSTIME, ctypes.byref(setting), None)
    os.read(timer, 8)
    return result


def in_a_loop(wait: Callable[[], int]) -> int:
    # A condition may wake for no reason.
    while not (result := wait()):
        pass
    return result


def on_condition(name: str, *clock: int) -> Callable[[Any], int]:
    condition, mutex = zeroed(), locked_mutex()
    return lambda until: in_a_loop(lambda: LIBC[name](condition, mutex, *clock, ctypes.byref(until)))


def on(name: str, lock: Any, *clock: int) -> Callable[[Any], int]:
    return lambda until: int(LIBC[name](lock, *clock, ctypes.byref(until)))


WAITS: dict[str, Callable[[Any], int]] = {
    "pthread_cond_timedwait": on_condition("pthread_cond_timedwait"),
    "pthread_cond_clockwait": on_condition("pthread_cond_clockwait", REALTIME),
    "cnd_timedwait": on_condition("cnd_timedwait"),
    "mtx_timedlock": on("mtx_timedlock", locked_mutex()),
    "sem_timedwait": on("sem_timedwait", zeroed()),
    "sem_clockwait": on("sem_clockwait", zeroed(), REALTIME),
    "pthread_mutex_timedlock": on("pthread_mutex_timedlock", locked_mutex()),
    "pthread_mutex_clocklock": on("pthread_mutex_clocklock", locked_mutex(), REALTIME),
    "pthread_rwlock_timedrdlock": on("pthread_rwlock_timedrdlock", written_lock()),
    "pthread_rwlock_timedwrlock": on("pthread_rwlock_timedwrlock", written_lock()),
    "pthread_rwlock_clockrdlock": on("pthread_rwlock_clockrdlock", written_lock(), REALTIME),
    "pthread_rwlock_clockwrlock": on("pthread_rwlock_clockwrlock", written_lock(), REALTIME),
    "clock_nanosleep": lambda until: int(
        LIBC.clock_nanosleep(REALTIME, TIMER_ABSTIME, ctypes.byref(until), None)
    ),
    "timerfd_settime": wait_for_timer,
}

if __name__ == "__main__":
    function, span_s = sys.argv[1], float(sys.argv[2])
    began, deadline_ns = time.monotonic(), time.time_ns() + int(span_s * 1e9)
    deadline = Timespec(deadline_ns // 10**9, deadline_ns % 10**9)
    sys.stdout.write("waiting\n")
    sys.stdout.flush()
    answer = WAITS[function](deadline)
    sys.stdout.write(f"{answer} {time.monotonic() - began}\n")
