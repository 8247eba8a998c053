/* Lets the disk fail under a database's write-ahead log, for as long as a test wants. Loaded into the real program with
 * LD_PRELOAD.
 *
 * DISK_ERRORS_ORDER names a file. While it exists and says "write 28", each write to a file whose name ends in "-wal" fails
 * with error number 28; "sync 5" fails each fsync and fdatasync instead. Everything else goes through. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int is_write_ahead_log(int file)
{
    static const char ending[] = "-wal";
    const ssize_t ending_length = sizeof ending - 1;
    char link[48], name[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, name, sizeof name);
    return length >= ending_length && memcmp(name + length - ending_length, ending, ending_length) == 0;
}

/* The error number that the test ordered for this operation on this file, or 0. */
static int ordered(const char *operation, int file)
{
    const char *path = getenv("DISK_ERRORS_ORDER");
    if (path == NULL || !is_write_ahead_log(file))
        return 0;
    int order = open(path, O_RDONLY | O_CLOEXEC);
    if (order < 0)
        return 0;
    char text[32] = {0}, what[16];
    int number = 0;
    ssize_t length = read(order, text, sizeof text - 1);
    close(order);
    if (length <= 0 || sscanf(text, "%15s %d", what, &number) != 2 || strcmp(what, operation) != 0)
        return 0;
    return number;
}

#define REAL(name, type) static type real; if (real == NULL) real = (type)dlsym(RTLD_NEXT, name)

typedef ssize_t (*write_at)(int, const void *, size_t, off64_t);
typedef ssize_t (*write_here)(int, const void *, size_t);
typedef int (*sync_file)(int);

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset)
{
    REAL("pwrite64", write_at);
    int error = ordered("write", file);
    return error ? (errno = error, -1) : real(file, bytes, count, offset);
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset)
{
    return pwrite64(file, bytes, count, offset);
}

ssize_t write(int file, const void *bytes, size_t count)
{
    REAL("write", write_here);
    int error = ordered("write", file);
    return error ? (errno = error, -1) : real(file, bytes, count);
}

int fsync(int file)
{
    REAL("fsync", sync_file);
    int error = ordered("sync", file);
    return error ? (errno = error, -1) : real(file);
}

int fdatasync(int file)
{
    REAL("fdatasync", sync_file);
    int error = ordered("sync", file);
    return error ? (errno = error, -1) : real(file);
}
