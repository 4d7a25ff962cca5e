/* Errors and short reads of the files below $FAULT_FOLDER, for tests: every $FAULT_EVERY-th read fails with EIO; without
   that variable every read gives a third of what was asked for. Preloaded, it stands before read(2) of the C library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static ssize_t (*libc_read)(int, void *, size_t);
static int number;

static int is_below(int descriptor, const char *folder)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strncmp(path, folder, strlen(folder)) == 0;
}

ssize_t read(int descriptor, void *buffer, size_t count)
{
    if (!libc_read)
        libc_read = (ssize_t(*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
    const char *folder = getenv("FAULT_FOLDER"), *every = getenv("FAULT_EVERY");
    if (folder && is_below(descriptor, folder)) {
        if (!every)
            count = count / 3 + 1;
        else if (__sync_add_and_fetch(&number, 1) % atoi(every) == 0) {
            errno = EIO;
            return -1;
        }
    }
    return libc_read(descriptor, buffer, count);
}
