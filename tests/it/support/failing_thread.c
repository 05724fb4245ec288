/* Calls that fail, for LD_PRELOAD:
   * clock_gettime or getrandom, whichever a thread calls next whose name matches the pattern in the file that FAILING_THREAD names.
     Then the file is removed. The standard library of Rust panics if one of these calls fails.
   * pthread_create, always, if the name of the calling thread is in FAILING_TO_START. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int fails(void) {
    const char *path = getenv("FAILING_THREAD");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    char pattern[32] = {0}, name[16] = {0};
    ssize_t length = read(file, pattern, sizeof pattern - 1);
    close(file);
    prctl(PR_GET_NAME, name);
    /* If several threads come here at once, only one of them removes the file. */
    return length > 0 && fnmatch(pattern, name, 0) == 0 && unlink(path) == 0;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!fails()) return syscall(SYS_clock_gettime, clock, time);
    errno = EINVAL;
    return -1;
}

ssize_t getrandom(void *bytes, size_t length, unsigned flags) {
    if (!fails()) return syscall(SYS_getrandom, bytes, length, flags);
    errno = EFAULT;
    return -1;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument) {
    char name[16] = {0};
    const char *failing = getenv("FAILING_TO_START");
    prctl(PR_GET_NAME, name);
    if (failing && strcmp(failing, name) == 0) return EAGAIN;
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) = dlsym(RTLD_NEXT, "pthread_create");
    return real(thread, attributes, run, argument);
}
