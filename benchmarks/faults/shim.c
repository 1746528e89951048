/* What a disk and a clock can do to a process, at the n-th call under one folder: preloaded, silent until told. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { NOTHING, RENAMES, WRITES, SYNCS, READS };
static int watched, answer;     /* which calls; the errno they get, or 0: SIGKILL */
static long first, seen, shift; /* from which call on; how many there were; seconds that the clock is wrong by */
static char root[PATH_MAX];

void fault_plan(int calls, int number, long from, const char *folder) {
    watched = calls, answer = number, first = from, seen = 0;
    snprintf(root, sizeof root, "%s", folder);
}
long fault_count(void) { return seen; }
void fault_clock(long seconds) { shift = seconds; }

static int due(void) {
    if (++seen < first) return 0;
    if (!answer) kill(getpid(), SIGKILL);
    errno = answer;
    return 1;
}

/* A regular file under the folder: what a process says to its terminal is not touched. */
static int ours(int fd) {
    char name[40], path[PATH_MAX];
    struct stat found;
    int saved = errno;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    int is = length > 0 && !strncmp(path, root, strlen(root)) && !fstat(fd, &found) && S_ISREG(found.st_mode);
    errno = saved;
    return is;
}

#define REAL(type, name, ...)                                  \
    static type (*real)(__VA_ARGS__);                          \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

/* Every rename counts twice: before it is done, and after. */
#define RENAME(name, declared, passed, ...)                    \
    int name declared {                                        \
        REAL(int, name, __VA_ARGS__);                          \
        if (watched == RENAMES && due()) return -1;            \
        int result = real passed, saved = errno;               \
        if (watched == RENAMES && !answer) due();              \
        errno = saved;                                         \
        return result;                                         \
    }
RENAME(rename, (const char *a, const char *b), (a, b), const char *, const char *)
RENAME(link, (const char *a, const char *b), (a, b), const char *, const char *)
RENAME(renameat, (int a, const char *b, int c, const char *d), (a, b, c, d), int, const char *, int, const char *)
RENAME(renameat2, (int a, const char *b, int c, const char *d, unsigned e), (a, b, c, d, e), int, const char *, int,
       const char *, unsigned)
RENAME(linkat, (int a, const char *b, int c, const char *d, int e), (a, b, c, d, e), int, const char *, int,
       const char *, int)

#define TRANSFER(name, kind, declared, passed, ...)            \
    ssize_t name declared {                                    \
        REAL(ssize_t, name, __VA_ARGS__);                      \
        if (watched == kind && ours(fd) && due()) return -1;   \
        return real passed;                                    \
    }
TRANSFER(write, WRITES, (int fd, const void *b, size_t n), (fd, b, n), int, const void *, size_t)
TRANSFER(pwrite, WRITES, (int fd, const void *b, size_t n, off_t o), (fd, b, n, o), int, const void *, size_t, off_t)
TRANSFER(pwrite64, WRITES, (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o), int, const void *, size_t,
         off64_t)
TRANSFER(read, READS, (int fd, void *b, size_t n), (fd, b, n), int, void *, size_t)
TRANSFER(pread, READS, (int fd, void *b, size_t n, off_t o), (fd, b, n, o), int, void *, size_t, off_t)
TRANSFER(pread64, READS, (int fd, void *b, size_t n, off64_t o), (fd, b, n, o), int, void *, size_t, off64_t)

int fsync(int fd) {
    REAL(int, fsync, int);
    return watched == SYNCS && ours(fd) && due() ? -1 : real(fd);
}

int clock_gettime(clockid_t which, struct timespec *now) {
    REAL(int, clock_gettime, clockid_t, struct timespec *);
    int result = real(which, now);
    if (which == CLOCK_REALTIME && !result) now->tv_sec += shift;
    return result;
}
time_t time(time_t *where) {
    REAL(time_t, time, time_t *);
    time_t now = real(NULL) + shift;
    return where ? *where = now : now;
}
int gettimeofday(struct timeval *now, void *zone) {
    REAL(int, gettimeofday, struct timeval *, void *);
    int result = real(now, zone);
    if (!result) now->tv_sec += shift;
    return result;
}
