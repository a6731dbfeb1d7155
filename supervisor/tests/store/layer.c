/* A layer between a program and its disk: counts the calls on files called `supervisor.db*` and lets one of them,
 * or all of them for a while, fail, do half of what was asked, or be the program's last. Loaded by LD_PRELOAD.
 *
 *   STORE_FAULT       fail | short | kill-before | kill-after
 *   STORE_FAULT_AT    the number of the call, from 1
 *   STORE_FAULT_WHILE or: every call that changes something, as long as this file exists
 *   STORE_FAULT_ERRNO what a failing call says; EIO unless given
 *   STORE_FAULT_COUNT a file of 8 bytes that has the number of calls so far
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name); real; })
#define MOST_DESCRIPTORS 65536

static atomic_uchar ours[MOST_DESCRIPTORS];
static atomic_ulong own_count;
static atomic_ulong *count = &own_count;
static unsigned long at;
static const char *fault = "", *meanwhile;
static int failure = EIO;

__attribute__((constructor)) static void begin(void) {
    const char *text = getenv("STORE_FAULT");
    if (text) fault = strdup(text);
    if ((text = getenv("STORE_FAULT_AT"))) at = strtoul(text, NULL, 10);
    if ((text = getenv("STORE_FAULT_WHILE"))) meanwhile = strdup(text);
    if ((text = getenv("STORE_FAULT_ERRNO"))) failure = atoi(text);
    if ((text = getenv("STORE_FAULT_COUNT"))) {
        int file = REAL(open)(text, O_RDWR | O_CLOEXEC);
        void *shared = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (shared != MAP_FAILED) count = shared;
        REAL(close)(file);
    }
}

static int is_ours(const char *path) {
    const char *name = strrchr(path, '/');
    return strncmp(name ? name + 1 : path, "supervisor.db", 13) == 0;
}

enum verdict { PASS, FAIL, SHORT, LAST };

/* One call on our files: what becomes of it. */
static enum verdict judge(void) {
    unsigned long number = atomic_fetch_add(count, 1) + 1;
    int hit = meanwhile ? access(meanwhile, F_OK) == 0 : number == at;
    if (!hit) return PASS;
    if (!strcmp(fault, "kill-before")) kill(getpid(), SIGKILL);
    if (!strcmp(fault, "kill-after")) return LAST;
    return strcmp(fault, "short") ? FAIL : SHORT;
}

/* The same for calls that are done wholly or not at all. */
#define WHOLE(result, call) \
    do { \
        enum verdict verdict = judge(); \
        if (verdict == FAIL || verdict == SHORT) { errno = failure; return -1; } \
        result = call; \
        if (verdict == LAST) kill(getpid(), SIGKILL); \
    } while (0)

static int follow(int file) {
    if (file >= 0 && file < MOST_DESCRIPTORS) atomic_store(&ours[file], 1);
    return file;
}

static int follows(int file) { return file >= 0 && file < MOST_DESCRIPTORS && atomic_load(&ours[file]); }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        if (!is_ours(path)) return REAL(name)(path, flags, mode); \
        if (!(flags & O_CREAT)) return follow(REAL(name)(path, flags, mode)); \
        int file; \
        WHOLE(file, REAL(name)(path, flags, mode)); \
        return follow(file); \
    }
OPEN(open)
OPEN(open64)

int close(int file) {
    if (follows(file)) atomic_store(&ours[file], 0);
    return REAL(close)(file);
}

/* Half of what is asked is written, and then there is no more room, no more disk or no more process. */
#define WRITE(name, type, parameters, arguments, half) \
    ssize_t name parameters { \
        if (!follows(file)) return REAL(name) arguments; \
        enum verdict verdict = judge(); \
        if (verdict == FAIL) { errno = failure; return -1; } \
        if (verdict == SHORT || verdict == LAST) size = half; \
        ssize_t written = REAL(name) arguments; \
        if (verdict == LAST) kill(getpid(), SIGKILL); \
        return written; \
    }
WRITE(write, , (int file, const void *bytes, size_t size), (file, bytes, size), size > 1 ? size / 2 : size)
WRITE(pwrite, , (int file, const void *bytes, size_t size, off_t to), (file, bytes, size, to), size > 1 ? size / 2 : size)
WRITE(pwrite64, , (int file, const void *bytes, size_t size, off64_t to), (file, bytes, size, to),
      size > 1 ? size / 2 : size)

#define ON_FILE(name, parameters, arguments) \
    int name parameters { \
        if (!follows(file)) return REAL(name) arguments; \
        int result; \
        WHOLE(result, REAL(name) arguments); \
        return result; \
    }
ON_FILE(fsync, (int file), (file))
ON_FILE(fdatasync, (int file), (file))
ON_FILE(ftruncate, (int file, off_t size), (file, size))
ON_FILE(ftruncate64, (int file, off64_t size), (file, size))

#define ON_PATH(name, parameters, arguments) \
    int name parameters { \
        if (!is_ours(path)) return REAL(name) arguments; \
        int result; \
        WHOLE(result, REAL(name) arguments); \
        return result; \
    }
ON_PATH(unlink, (const char *path), (path))
ON_PATH(rename, (const char *path, const char *to), (path, to))
