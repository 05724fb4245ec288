/* Syncs that fail, for LD_PRELOAD: while the file that FAILING_SYNC names exists, fsync and fdatasync return EIO. If its content begins
   with "once", the first of them removes it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(void) {
    const char *path = getenv("FAILING_SYNC");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    char content[8] = {0};
    ssize_t length = read(file, content, sizeof content - 1);
    close(file);
    if (length > 0 && strncmp(content, "once", 4) == 0 && unlink(path) != 0) return 0;
    errno = EIO;
    return 1;
}

int fsync(int file) { return fails() ? -1 : syscall(SYS_fsync, file); }

int fdatasync(int file) { return fails() ? -1 : syscall(SYS_fdatasync, file); }
