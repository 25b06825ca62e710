/*
 * A slow disk for a program that is not asked: preloaded, it makes fsync and fdatasync last longer.
 *
 *   SLOW_DISK_DELAY_US           each sync takes so many microseconds longer than it does, on top of what it takes anyway.
 *   SLOW_DISK_BYTES_PER_SECOND   a sync lasts at least as long as what was written to files since the last one takes at
 *                                this rate. Syncs wait for each other, as one disk does one thing at a time; time in
 *                                which there was none is not saved up.
 *   SLOW_DISK_ACCOUNT            a file of seven 64-bit counters, which tells what was done: see `struct account`.
 *
 * System calls are made directly, so that nothing has to be looked up before the first. 64-bit systems only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(long) == 8, "offsets are given to the kernel in one piece");

struct account {
    uint64_t syncs;
    uint64_t fsyncs;        /* of these, by fsync: of whole files and of folders */
    uint64_t fsync_ns;      /* which these took, made longer as they were */
    uint64_t written_bytes; /* to files */
    uint64_t synced_bytes;  /* of these, followed by a sync */
    uint64_t synced_ns;     /* which the syncs took by themselves */
    uint64_t waited_ns;     /* by which they were made longer */
};

static struct account *account;
static uint64_t delay_ns, bytes_per_second;

static pthread_mutex_t disk = PTHREAD_MUTEX_INITIALIZER;
static uint64_t dirty_bytes; /* written since the last sync */
static uint64_t free_at_ns;  /* when the disk will have done all it was given; under `disk` */

static void fail(const char *why, size_t length)
{
    if (syscall(SYS_write, 2, why, length) < 0) {
        /* There is nobody to tell. */
    }
    _exit(1);
}

static uint64_t number(const char *name)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : 0;
}

__attribute__((constructor)) static void begin(void)
{
    static const char why[] = "slow disk: SLOW_DISK_ACCOUNT cannot be mapped\n";
    const char *path = getenv("SLOW_DISK_ACCOUNT");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *place = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *account, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (place == MAP_FAILED)
        fail(why, sizeof why - 1);
    close(fd);
    delay_ns = number("SLOW_DISK_DELAY_US") * 1000;
    bytes_per_second = number("SLOW_DISK_BYTES_PER_SECOND");
    account = place;
}

static void count(uint64_t *counter, uint64_t more)
{
    __atomic_fetch_add(counter, more, __ATOMIC_RELAXED);
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void wait_until(uint64_t at)
{
    struct timespec time = {.tv_sec = (time_t)(at / 1000000000u), .tv_nsec = (long)(at % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR) {
    }
}

static int synchronize(long call, int fd)
{
    uint64_t begun = now(), until;
    pthread_mutex_lock(&disk);
    uint64_t bytes = __atomic_exchange_n(&dirty_bytes, 0, __ATOMIC_RELAXED);
    if (bytes_per_second) {
        if (free_at_ns < begun)
            free_at_ns = begun;
        free_at_ns += (uint64_t)((__uint128_t)bytes * 1000000000u / bytes_per_second);
    }
    until = free_at_ns;
    pthread_mutex_unlock(&disk);
    int result = (int)syscall(call, fd);
    int error = errno;
    uint64_t synced = now();
    if (until < synced + delay_ns)
        until = synced + delay_ns;
    uint64_t waited = 0;
    if (until > synced) {
        wait_until(until);
        waited = now() - synced;
    }
    if (account) {
        count(&account->synced_bytes, bytes);
        count(&account->synced_ns, synced - begun);
        count(&account->waited_ns, waited);
        if (call == SYS_fsync) {
            count(&account->fsync_ns, synced - begun + waited);
            count(&account->fsyncs, 1);
        }
        count(&account->syncs, 1);
    }
    errno = error;
    return result;
}

static ssize_t written(ssize_t result)
{
    if (result > 0 && account) {
        count(&dirty_bytes, (uint64_t)result);
        count(&account->written_bytes, (uint64_t)result);
    }
    return result;
}

/* `write` and `writev` are for sockets and pipes too. */
static ssize_t written_to(int fd, ssize_t result)
{
    struct stat status;
    int error = errno;
    if (result > 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode))
        written(result);
    errno = error;
    return result;
}

int fsync(int fd)
{
    return synchronize(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return synchronize(SYS_fdatasync, fd);
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    return written_to(fd, syscall(SYS_write, fd, bytes, length));
}

ssize_t writev(int fd, const struct iovec *parts, int length)
{
    return written_to(fd, syscall(SYS_writev, fd, parts, length));
}

/* Sockets and pipes have no place to write at. */
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at)
{
    return written(syscall(SYS_pwrite64, fd, bytes, length, at));
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at)
{
    return written(syscall(SYS_pwrite64, fd, bytes, length, at));
}

ssize_t pwritev(int fd, const struct iovec *parts, int length, off_t at)
{
    return written(syscall(SYS_pwritev, fd, parts, length, at, 0));
}

ssize_t pwritev64(int fd, const struct iovec *parts, int length, off64_t at)
{
    return written(syscall(SYS_pwritev, fd, parts, length, at, 0));
}
