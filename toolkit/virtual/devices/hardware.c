#include "hardware.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FOLDER "/run/hardware"
#define COOLING_SECONDS 20.0
#define WARMING_BYTES (256.0 * 1024 * 1024)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *cached;
static struct stat cached_of;

static bool overridden(void) {
  const char *folder = getenv("RACKPROOF_HARDWARE");
  return folder && *folder;
}

static void path_of(char *out, size_t size, const char *name) {
  snprintf(out, size, "%s/%s", overridden() ? getenv("RACKPROOF_HARDWARE") : FOLDER, name);
}

static char *read_all(int fd, size_t size) {
  char *text = malloc(size + 1);
  size_t have = 0;
  while (text && have < size) {
    ssize_t got = read(fd, text + have, size - have);
    if (got <= 0)
      break;
    have += (size_t)got;
  }
  if (text)
    text[have] = 0;
  return text;
}

/* The text of the state file, or NULL. The daemon replaces the file, so an unchanged inode and time is unchanged text.
   Call with the lock held. */
static const char *state_text(void) {
  char path[512];
  struct stat now;
  path_of(path, sizeof path, "state");
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &now) < 0) {
    if (fd >= 0)
      close(fd);
    free(cached);
    return cached = NULL;
  }
  bool same = cached && now.st_dev == cached_of.st_dev && now.st_ino == cached_of.st_ino &&
              now.st_size == cached_of.st_size && now.st_mtim.tv_sec == cached_of.st_mtim.tv_sec &&
              now.st_mtim.tv_nsec == cached_of.st_mtim.tv_nsec;
  if (!same) {
    free(cached);
    cached = read_all(fd, (size_t)now.st_size);
    cached_of = now;
  }
  close(fd);
  return cached;
}

bool hw_present(void) {
  pthread_mutex_lock(&lock);
  bool present = state_text() != NULL;
  pthread_mutex_unlock(&lock);
  return present;
}

bool hw_text(const char *key, char *out, size_t size) {
  size_t length = strlen(key);
  bool found = false;
  pthread_mutex_lock(&lock);
  for (const char *line = state_text(); line && *line && !found;) {
    const char *end = strchrnul(line, '\n');
    if (!strncmp(line, key, length) && line[length] == ' ') {
      const char *value = line + length + 1;
      size_t have = (size_t)(end - value);
      if (have >= size)
        have = size - 1;
      memcpy(out, value, have);
      out[have] = 0;
      found = true;
    }
    line = *end ? end + 1 : NULL;
  }
  pthread_mutex_unlock(&lock);
  return found;
}

static bool as_number(const char *text, uint64_t *out) {
  char *end;
  errno = 0;
  uint64_t value = strtoull(text, &end, 10);
  if (errno || end == text || *end)
    return false;
  *out = value;
  return true;
}

bool hw_number(const char *key, uint64_t *out) {
  char text[HW_TEXT];
  return hw_text(key, text, sizeof text) && as_number(text, out);
}

bool hw_gpu_text(int gpu, const char *key, char *out, size_t size) {
  char full[96];
  snprintf(full, sizeof full, "gpu%d.%s", gpu, key);
  if (hw_text(full, out, size))
    return true;
  snprintf(full, sizeof full, "gpu.%s", key);
  return hw_text(full, out, size);
}

bool hw_gpu_number(int gpu, const char *key, uint64_t *out) {
  char text[HW_TEXT];
  return hw_gpu_text(gpu, key, text, sizeof text) && as_number(text, out);
}

bool hw_gpu_real(int gpu, const char *key, double *out) {
  char text[HW_TEXT], *end;
  if (!hw_gpu_text(gpu, key, text, sizeof text))
    return false;
  double value = strtod(text, &end);
  if (end == text || *end)
    return false;
  *out = value;
  return true;
}

int hw_gpu_count(void) {
  uint64_t count;
  if (!hw_number("count", &count))
    return 0;
  return count > HW_MAX_GPUS ? HW_MAX_GPUS : (int)count;
}

static uint64_t read_counter(const char *name) {
  char path[512], text[32] = "";
  uint64_t value = 0;
  path_of(path, sizeof path, name);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return 0; /* nothing has moved since power-on */
  flock(fd, LOCK_SH);
  ssize_t got = read(fd, text, sizeof text - 1);
  close(fd);
  if (got <= 0)
    return 0;
  text[strcspn(text, "\n")] = 0;
  return as_number(text, &value) ? value : 0;
}

uint64_t hw_moved(int gpu) {
  char name[32];
  snprintf(name, sizeof name, "load/gpu%d", gpu);
  return read_counter(name);
}

uint64_t hw_nvlink_sent(int gpu) {
  char name[32];
  snprintf(name, sizeof name, "load/gpu%d.nvlink", gpu);
  return read_counter(name);
}

bool hw_lost(int gpu) {
  uint64_t limit;
  return hw_gpu_number(gpu, "falls_off_after_bytes", &limit) && hw_moved(gpu) >= limit;
}

/* Sequence number of the last record of a kernel log, or -1. */
static int64_t last_sequence(int fd) {
  char tail[4097];
  struct stat info;
  int64_t last = -1;
  if (fstat(fd, &info) < 0)
    return last;
  off_t from = info.st_size > 4096 ? info.st_size - 4096 : 0;
  ssize_t got = pread(fd, tail, sizeof tail - 1, from);
  if (got <= 0)
    return last;
  tail[got] = 0;
  for (char *line = tail; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
    int64_t sequence;
    if (sscanf(line, "%*d,%" SCNd64 ",", &sequence) == 1)
      last = sequence;
  }
  return last;
}

static void log_kernel(int fd, const char *text) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  int64_t microseconds = now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000;
  lseek(fd, 0, SEEK_END);
  dprintf(fd, "3,%" PRId64 ",%" PRId64 ",-;%s\n", last_sequence(fd) + 1, microseconds, text);
}

/* What the driver prints when a GPU is gone: the Xid, then the plain sentence. */
static void log_fallen_off(int gpu) {
  char path[512], pci[HW_TEXT], text[256];
  path_of(path, sizeof path, "kmsg");
  if (!hw_gpu_text(gpu, "pci", pci, sizeof pci) || strlen(pci) < 16)
    return;
  for (char *c = pci; *c; c++)
    *c = *c >= 'A' && *c <= 'F' ? (char)(*c + 32) : *c;
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0)
    return;
  flock(fd, LOCK_EX);
  /* pci is DDDDDDDD:BB:DD.F; the Xid names DDDD:BB:DD. */
  snprintf(text, sizeof text, "NVRM: Xid (PCI:%.10s): 79, GPU has fallen off the bus.", pci + 4);
  log_kernel(fd, text);
  snprintf(text, sizeof text, "NVRM: GPU %s: GPU has fallen off the bus.", pci + 4);
  log_kernel(fd, text);
  close(fd);
}

bool hw_add_moved(int gpu, uint64_t bytes) {
  char path[512], name[32], text[32] = "";
  uint64_t before = 0, limit;
  path_of(path, sizeof path, "load");
  mkdir(path, 0755);
  snprintf(name, sizeof name, "load/gpu%d", gpu);
  path_of(path, sizeof path, name);
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0)
    return false;
  flock(fd, LOCK_EX);
  ssize_t got = pread(fd, text, sizeof text - 1, 0);
  text[strcspn(text, "\n")] = 0;
  if (got <= 0 || !as_number(text, &before)) { /* new: users who are not root count too, whatever the umask */
    before = 0;
    (void)!fchmod(fd, 0666);
  }
  int length = snprintf(text, sizeof text, "%" PRIu64 "\n", before + bytes);
  bool written = pwrite(fd, text, (size_t)length, 0) == length && ftruncate(fd, length) == 0;
  if (written && hw_gpu_number(gpu, "falls_off_after_bytes", &limit) && before < limit && before + bytes >= limit)
    log_fallen_off(gpu);
  close(fd);
  return written;
}

/* Seconds since the GPU last moved a byte; negative where it has not since power-on. */
static double idle_seconds(int gpu) {
  char path[512], name[32];
  struct stat info;
  struct timespec now;
  snprintf(name, sizeof name, "load/gpu%d", gpu);
  path_of(path, sizeof path, name);
  if (stat(path, &info) < 0)
    return -1;
  clock_gettime(CLOCK_REALTIME, &now);
  double idle = (double)(now.tv_sec - info.st_mtim.tv_sec) + (double)(now.tv_nsec - info.st_mtim.tv_nsec) / 1e9;
  return idle > 0 ? idle : 0;
}

double hw_heat(int gpu) {
  double idle = idle_seconds(gpu);
  if (idle < 0)
    return 0;
  return (1 - exp(-(double)hw_moved(gpu) / WARMING_BYTES)) * exp(-idle / COOLING_SECONDS);
}

bool hw_busy(int gpu) {
  double idle = idle_seconds(gpu);
  return idle >= 0 && idle < 2;
}

double hw_clock_fraction(int gpu) {
  double fraction;
  return hw_gpu_real(gpu, "clock_fraction", &fraction) && fraction > 0 && fraction < 1 ? fraction : 1;
}

bool hw_fabric_ready(void) {
  char path[512], manager[HW_TEXT], driver[HW_TEXT], word[16] = "";
  if (!hw_text("fabric_manager", manager, sizeof manager))
    return true; /* a board without NVSwitches */
  if (strcmp(manager, "installed") && hw_text("driver", driver, sizeof driver) && strcmp(manager, driver))
    return false;
  path_of(path, sizeof path, "load/fabric_manager");
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return overridden(); /* a test's folder has no service manager that could have started one */
  ssize_t got = read(fd, word, sizeof word - 1);
  close(fd);
  return got >= 7 && !strncmp(word, "running", 7);
}
