/*
 * A wall clock for tests: preloaded into a process, and so into all that it starts, this adds an offset to
 * every reading of the wall clock. The monotonic clock stays as it is.
 *
 * The offset is in the file that WALL_CLOCK names: nanoseconds, a native int64, read again at each call. Who
 * changes it sets the clock of all these processes at once, as an administrator or NTP would: waits until a
 * time of day end earlier or later by it, waits for a span of time do not.
 *
 * Files get the kernel's own times, except where a program asks for "now" (touch). A timer until a time of day
 * (timer_settime, timerfd_settime) goes by the offset at the time at which it is set.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define FOREVER INT64_MAX / 2
/* How soon a wait notices that the clock was set. */
#define SLICE (SECOND / 10)

_Static_assert(sizeof(time_t) == 8, "a system with a time_t of 64 bits");

static const int64_t none = 0;
static const volatile int64_t *offset = &none;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

/* The newest version: glibc keeps an older pthread_cond_timedwait, which other functions do not fit. */
static void *find_real(const char *name) {
    void *found = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2");
    return found ? found : dlsym(RTLD_NEXT, name);
}

#define REAL(name)                                                                                            \
    ({                                                                                                        \
        static __typeof__(&name) found;                                                                       \
        if (!found) found = (__typeof__(&name))find_real(#name);                                              \
        found;                                                                                                \
    })

__attribute__((constructor)) static void open_offset(void) {
    const char *path = getenv("WALL_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *map = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (map != MAP_FAILED) offset = map;
    close(file);
}

/* ---- Reading the clock ---- */

static bool is_wall(clockid_t clock) {
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_REALTIME_ALARM ||
           clock == CLOCK_TAI;
}

static int64_t ns_of(const struct timespec *at) {
    return at->tv_sec > FOREVER / SECOND ? FOREVER : at->tv_sec * SECOND + at->tv_nsec;
}

static struct timespec timespec_of(int64_t ns) {
    return ns < 0 ? (struct timespec){0, 0} : (struct timespec){ns / SECOND, ns % SECOND};
}

static int read_clock(clockid_t clock, struct timespec *at) {
    if (!real_clock_gettime) real_clock_gettime = find_real("clock_gettime");
    return real_clock_gettime(clock, at);
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int result = read_clock(clock, at);
    if (!result && is_wall(clock)) *at = timespec_of(ns_of(at) + *offset);
    return result;
}

static int64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    return ns_of(&at);
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    int64_t ns = now();
    (void)zone;
    *at = (struct timeval){ns / SECOND, ns % SECOND / 1000};
    return 0;
}

time_t time(time_t *at) {
    time_t seconds = now() / SECOND;
    if (at) *at = seconds;
    return seconds;
}

int timespec_get(struct timespec *at, int base) {
    if (base != TIME_UTC) return 0;
    *at = timespec_of(now());
    return base;
}

/* ---- Waiting until a time of day ---- */

/*
 * No call tells here by which clock its deadline goes. By the monotonic clock, which begins at the start of the
 * machine, it would take 31 years to get to this number of seconds.
 */
static bool is_time_of_day(const struct timespec *deadline) {
    return deadline->tv_sec > 1000000000 && deadline->tv_nsec >= 0 && deadline->tv_nsec < SECOND;
}

static struct timespec unshifted(const struct timespec *deadline) {
    return is_time_of_day(deadline) ? timespec_of(ns_of(deadline) - *offset) : *deadline;
}

/* The kernel's time until which to wait before the clock is looked at again. */
static struct timespec next_slice(const struct timespec *deadline) {
    struct timespec at = unshifted(deadline);
    int64_t latest = now() - *offset + SLICE;
    return is_time_of_day(deadline) && ns_of(&at) > latest ? timespec_of(latest) : at;
}

static bool is_over(const struct timespec *deadline) {
    return !is_time_of_day(deadline) || now() >= ns_of(deadline);
}

/* Wait in slices. `call` gets `slice` and gives 0 or an error number. */
#define WAIT(deadline, call)                                                                                  \
    ({                                                                                                        \
        int error;                                                                                            \
        do {                                                                                                  \
            struct timespec slice = next_slice(deadline);                                                     \
            error = (call);                                                                                   \
        } while (error == ETIMEDOUT && !is_over(deadline));                                                   \
        error;                                                                                                \
    })

/*
 * A condition is waited for once only: between two slices a signal could be missed. To wake for no reason is
 * allowed, and callers look at what they wait for.
 */
#define WAIT_ONCE(deadline, call)                                                                             \
    ({                                                                                                        \
        struct timespec slice = next_slice(deadline);                                                         \
        int error = (call);                                                                                   \
        error == ETIMEDOUT && !is_over(deadline) ? 0 : error;                                                 \
    })

static int with_errno(int error) {
    if (!error) return 0;
    errno = error;
    return -1;
}

static int c11_of(int error) {
    return error == 0 ? thrd_success : error == ETIMEDOUT ? thrd_timedout : thrd_error;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict deadline) {
    return WAIT_ONCE(deadline, REAL(pthread_cond_timedwait)(condition, mutex, &slice));
}

int pthread_cond_clockwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex, clockid_t clock,
                           const struct timespec *restrict deadline) {
    return WAIT_ONCE(deadline, REAL(pthread_cond_clockwait)(condition, mutex, clock, &slice));
}

/* librdkafka waits by these two. glibc's are the POSIX ones with other error numbers. */
int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict deadline) {
    return c11_of(pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, deadline));
}

int mtx_timedlock(mtx_t *restrict mutex, const struct timespec *restrict deadline) {
    return c11_of(pthread_mutex_timedlock((pthread_mutex_t *)mutex, deadline));
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict deadline) {
    return with_errno(WAIT(deadline, REAL(sem_timedwait)(semaphore, &slice) ? errno : 0));
}

int sem_clockwait(sem_t *restrict semaphore, clockid_t clock, const struct timespec *restrict deadline) {
    return with_errno(WAIT(deadline, REAL(sem_clockwait)(semaphore, clock, &slice) ? errno : 0));
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict deadline) {
    return WAIT(deadline, REAL(pthread_mutex_timedlock)(mutex, &slice));
}

int pthread_mutex_clocklock(pthread_mutex_t *restrict mutex, clockid_t clock,
                            const struct timespec *restrict deadline) {
    return WAIT(deadline, REAL(pthread_mutex_clocklock)(mutex, clock, &slice));
}

int pthread_rwlock_timedrdlock(pthread_rwlock_t *restrict lock, const struct timespec *restrict deadline) {
    return WAIT(deadline, REAL(pthread_rwlock_timedrdlock)(lock, &slice));
}

int pthread_rwlock_timedwrlock(pthread_rwlock_t *restrict lock, const struct timespec *restrict deadline) {
    return WAIT(deadline, REAL(pthread_rwlock_timedwrlock)(lock, &slice));
}

int pthread_rwlock_clockrdlock(pthread_rwlock_t *restrict lock, clockid_t clock,
                               const struct timespec *restrict deadline) {
    return WAIT(deadline, REAL(pthread_rwlock_clockrdlock)(lock, clock, &slice));
}

int pthread_rwlock_clockwrlock(pthread_rwlock_t *restrict lock, clockid_t clock,
                               const struct timespec *restrict deadline) {
    return WAIT(deadline, REAL(pthread_rwlock_clockwrlock)(lock, clock, &slice));
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *span, struct timespec *left) {
    if (!(flags & TIMER_ABSTIME)) return REAL(clock_nanosleep)(clock, flags, span, left);
    int error;
    do {
        struct timespec slice = next_slice(span);
        error = REAL(clock_nanosleep)(clock, flags, &slice, left);
    } while (!error && !is_over(span));
    return error;
}

static struct itimerspec unshifted_timer(const struct itimerspec *value, bool is_absolute) {
    struct itimerspec timer = *value;
    if (is_absolute) timer.it_value = unshifted(&value->it_value);
    return timer;
}

int timer_settime(timer_t timer, int flags, const struct itimerspec *restrict value,
                  struct itimerspec *restrict old) {
    struct itimerspec real = unshifted_timer(value, flags & TIMER_ABSTIME);
    return REAL(timer_settime)(timer, flags, &real, old);
}

int timerfd_settime(int file, int flags, const struct itimerspec *value, struct itimerspec *old) {
    struct itimerspec real = unshifted_timer(value, flags & TFD_TIMER_ABSTIME);
    return REAL(timerfd_settime)(file, flags, &real, old);
}

/* ---- Files that are touched ---- */

static const struct timespec *touched(const struct timespec *times, struct timespec shifted[2]) {
    static const struct timespec both_now[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}};
    for (int i = 0; i < 2; i++) {
        shifted[i] = (times ? times : both_now)[i];
        if (shifted[i].tv_nsec == UTIME_NOW) shifted[i] = timespec_of(now());
    }
    return shifted;
}

int utimensat(int folder, const char *path, const struct timespec times[2], int flags) {
    struct timespec shifted[2];
    return REAL(utimensat)(folder, path, touched(times, shifted), flags);
}

int futimens(int file, const struct timespec times[2]) {
    struct timespec shifted[2];
    return REAL(futimens)(file, touched(times, shifted));
}
