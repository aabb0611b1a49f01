/*
 * A system's clock that is moved while a program runs, for one that is started with LD_PRELOAD: what it reads of the wall
 * time is moved by the seconds in the file JUMPCLOCK_FILE; its monotonic clock is not. See __init__.py.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *moved; /* seconds; shared with whoever writes the file */

/* No answer would look like a clock that does not jump: without its file a program does not start. */
__attribute__((constructor)) static void find(void) {
    const char *name = getenv("JUMPCLOCK_FILE");
    int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *page = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *moved, PROT_READ, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        abort();
    close(fd);
    moved = page;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(clock, now);
    if (!done && moved && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *moved;
    return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    static int (*real)(struct timeval *, void *);
    if (!real)
        real = dlsym(RTLD_NEXT, "gettimeofday");
    int done = real(now, zone);
    if (!done && moved)
        now->tv_sec += *moved;
    return done;
}

time_t time(time_t *now) {
    struct timespec here;
    clock_gettime(CLOCK_REALTIME, &here);
    if (now)
        *now = here.tv_sec;
    return here.tv_sec;
}
