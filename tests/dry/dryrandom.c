/*
 * A system that gives no random bytes any more, for a program that is started with LD_PRELOAD: getrandom and getentropy fail
 * with the errno in the file DRYRANDOM_FILE, while one stands there. See __init__.py.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

static const volatile int64_t *error; /* shared with whoever writes the file */

/* Without its file a program does not start: it would look like one that has random bytes. */
__attribute__((constructor)) static void find(void) {
    const char *name = getenv("DRYRANDOM_FILE");
    int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *page = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *error, PROT_READ, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        abort();
    close(fd);
    error = page;
}

ssize_t getrandom(void *room, size_t length, unsigned flags) {
    static ssize_t (*real)(void *, size_t, unsigned);
    if (!real)
        real = dlsym(RTLD_NEXT, "getrandom");
    if (!error || !*error)
        return real(room, length, flags);
    errno = *error;
    return -1;
}

int getentropy(void *room, size_t length) {
    static int (*real)(void *, size_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "getentropy");
    if (!error || !*error)
        return real(room, length);
    errno = *error;
    return -1;
}
