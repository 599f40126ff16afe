#include "hardware.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER "/run/hardware"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *cached;
static struct stat cached_of;
static uint64_t generation;

static bool overridden(void) {
  const char *folder = getenv("RACKPROOF_HARDWARE");
  return folder && *folder;
}

void hw_path(char *out, size_t size, const char *name) {
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
  hw_path(path, sizeof path, "state");
  if (stat(path, &now) < 0) {
    free(cached);
    return cached = NULL;
  }
  bool same = cached && now.st_dev == cached_of.st_dev && now.st_ino == cached_of.st_ino &&
              now.st_size == cached_of.st_size && now.st_mtim.tv_sec == cached_of.st_mtim.tv_sec &&
              now.st_mtim.tv_nsec == cached_of.st_mtim.tv_nsec;
  if (same)
    return cached;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  free(cached);
  cached = fd >= 0 && fstat(fd, &now) == 0 ? read_all(fd, (size_t)now.st_size) : NULL;
  cached_of = now;
  generation++;
  if (fd >= 0)
    close(fd);
  return cached;
}

bool hw_present(void) {
  pthread_mutex_lock(&lock);
  bool present = state_text() != NULL;
  pthread_mutex_unlock(&lock);
  return present;
}

uint64_t hw_generation(void) {
  pthread_mutex_lock(&lock);
  state_text();
  uint64_t now = generation;
  pthread_mutex_unlock(&lock);
  return now;
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

bool hw_as_number(const char *text, uint64_t *out) {
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
  return hw_text(key, text, sizeof text) && hw_as_number(text, out);
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
  return hw_gpu_text(gpu, key, text, sizeof text) && hw_as_number(text, out);
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

bool hw_fabric_ready(void) {
  char path[512], manager[HW_TEXT], driver[HW_TEXT], word[16] = "";
  if (!hw_text("fabric_manager", manager, sizeof manager))
    return true; /* a board without NVSwitches */
  if (strcmp(manager, "installed") && hw_text("driver", driver, sizeof driver) && strcmp(manager, driver))
    return false;
  hw_path(path, sizeof path, "load/fabric_manager");
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return overridden(); /* a test's folder has no service manager that could have started one */
  ssize_t got = read(fd, word, sizeof word - 1);
  close(fd);
  return got >= 7 && !strncmp(word, "running", 7);
}
