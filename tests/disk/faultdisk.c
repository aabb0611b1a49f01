/*
 * A disk that fails, for a program that is started with LD_PRELOAD: it follows a script, and remembers what was written
 * and not yet synced, so that a power cut can be played afterwards. See __init__.py.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

struct undo { /* before this write `size` was the file's size, and `length` bytes stood at `offset` */
    uint64_t offset, size, length;
};

/* The path of a descriptor that is meant, or nothing: the files whose path has FAULTDISK_FILES in it. */
static int meant(int fd, char *path) {
    char link[64];
    const char *part = getenv("FAULTDISK_FILES");
    if (!part)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return strstr(path, part) != NULL && strstr(path, ".undo") == NULL;
}

/* A line of the script is 'FUNCTION ERRNO' or 'FUNCTION sleep SECONDS'; FUNCTION is write or sync. */
static int fault(const char *function) {
    const char *script = getenv("FAULTDISK_SCRIPT");
    FILE *file = script ? fopen(script, "re") : NULL;
    char name[16], what[16];
    double seconds = 0;
    int found = 0;
    if (!file)
        return 0;
    while (!found && fscanf(file, "%15s %15s", name, what) == 2) {
        int sleeps = strcmp(what, "sleep") == 0;
        if (sleeps && fscanf(file, "%lf", &seconds) != 1)
            break;
        if (strcmp(name, function) != 0)
            continue;
        if (sleeps) {
            struct timespec time = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
            while (nanosleep(&time, &time) && errno == EINTR) /* PostgreSQL's processes signal one another */
                ;
        } else
            found = atoi(what);
    }
    fclose(file);
    return found;
}

static void remember(int fd, const char *path, off_t offset, size_t length) {
    char name[PATH_MAX + 8];
    struct stat now;
    if (!getenv("FAULTDISK_UNDO") || fstat(fd, &now))
        return;
    struct undo head = {(uint64_t)offset, (uint64_t)now.st_size, 0};
    char *old = malloc(length ? length : 1);
    ssize_t got = offset < now.st_size ? pread(fd, old, length, offset) : 0;
    head.length = got > 0 ? (uint64_t)got : 0;
    snprintf(name, sizeof name, "%s.undo", path);
    int undo = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (undo >= 0) {
        size_t whole = sizeof head + head.length;
        char *record = malloc(whole);
        memcpy(record, &head, sizeof head);
        memcpy(record + sizeof head, old, head.length);
        if (write(undo, record, whole) != (ssize_t)whole)
            abort();
        free(record);
        close(undo);
    }
    free(old);
}

static void forget(const char *path) {
    char name[PATH_MAX + 8];
    snprintf(name, sizeof name, "%s.undo", path);
    if (truncate(name, 0) && errno != ENOENT)
        abort();
}

static ssize_t put(ssize_t (*real)(int, const void *, size_t, off_t), int fd, const void *from, size_t size, off_t at) {
    char path[PATH_MAX];
    if (!meant(fd, path))
        return real(fd, from, size, at);
    int error = fault("write");
    if (error) {
        errno = error;
        return -1;
    }
    pthread_mutex_lock(&lock);
    remember(fd, path, at, size);
    ssize_t written = real(fd, from, size, at);
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t pwrite(int fd, const void *from, size_t size, off_t at) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "pwrite");
    return put(real, fd, from, size, at);
}

ssize_t pwrite64(int fd, const void *from, size_t size, off64_t at) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "pwrite64");
    return put(real, fd, from, size, at);
}

/* Each sync that was done is a line with its process in FAULTDISK_SYNCS. */
static void count(void) {
    const char *name = getenv("FAULTDISK_SYNCS");
    int file = name ? open(name, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
    char line[16];
    if (file < 0)
        return;
    int length = snprintf(line, sizeof line, "%d\n", (int)getpid());
    if (write(file, line, (size_t)length) != length)
        abort();
    close(file);
}

static int sync_with(int (*real)(int), int fd) {
    char path[PATH_MAX];
    if (!meant(fd, path))
        return real(fd);
    int error = fault("sync");
    if (error) {
        errno = error;
        return -1;
    }
    pthread_mutex_lock(&lock);
    int done = real(fd);
    if (!done) {
        forget(path);
        count();
    }
    pthread_mutex_unlock(&lock);
    return done;
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "fsync");
    return sync_with(real, fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "fdatasync");
    return sync_with(real, fd);
}

static int cut_with(int (*real)(int, off_t), int fd, off_t size) {
    char path[PATH_MAX];
    struct stat now;
    if (meant(fd, path) && !fstat(fd, &now) && size < now.st_size) {
        pthread_mutex_lock(&lock);
        remember(fd, path, size, (size_t)(now.st_size - size));
        pthread_mutex_unlock(&lock);
    }
    return real(fd, size);
}

int ftruncate(int fd, off_t size) {
    static int (*real)(int, off_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "ftruncate");
    return cut_with(real, fd, size);
}

int ftruncate64(int fd, off64_t size) {
    static int (*real)(int, off_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "ftruncate64");
    return cut_with(real, fd, size);
}
