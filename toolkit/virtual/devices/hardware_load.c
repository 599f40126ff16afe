/* What a GPU has done since power-on, and what it remembers beyond it: counters in files that many processes add to,
   each under its lock; and how hot and busy the GPU is, which follows from them. */
#include "hardware.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define COOLING_SECONDS 20.0
#define WARMING_BYTES (256.0 * 1024 * 1024)

static void counter_path(char *out, size_t size, const char *folder, int gpu, const char *name) {
  char relative[96];
  snprintf(relative, sizeof relative, "%s/gpu%d%s%s", folder, gpu, *name ? "." : "", name);
  hw_path(out, size, relative);
}

static uint64_t value_of(int fd) {
  char text[32] = "";
  uint64_t value;
  ssize_t got = pread(fd, text, sizeof text - 1, 0);
  text[strcspn(text, "\n")] = 0;
  return got > 0 && hw_as_number(text, &value) ? value : 0;
}

uint64_t hw_counter(const char *folder, int gpu, const char *name) {
  char path[512];
  counter_path(path, sizeof path, folder, gpu, name);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return 0; /* nothing was counted yet */
  flock(fd, LOCK_SH);
  uint64_t value = value_of(fd);
  close(fd);
  return value;
}

/* A counter's file, locked and made where there is none: users who are not root count too, whatever the umask. */
static int open_counter(const char *folder, int gpu, const char *name) {
  char path[512];
  struct stat info;
  hw_path(path, sizeof path, folder);
  if (mkdir(path, 0777) == 0)
    (void)!chmod(path, 0777);
  counter_path(path, sizeof path, folder, gpu, name);
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0)
    return fd;
  flock(fd, LOCK_EX);
  if (fstat(fd, &info) == 0 && info.st_size == 0)
    (void)!fchmod(fd, 0666);
  return fd;
}

static bool write_counter(int fd, uint64_t value) {
  char text[32];
  int length = snprintf(text, sizeof text, "%" PRIu64 "\n", value);
  return pwrite(fd, text, (size_t)length, 0) == length && ftruncate(fd, length) == 0;
}

bool hw_count(const char *folder, int gpu, const char *name, uint64_t more, uint64_t limit) {
  int fd = open_counter(folder, gpu, name);
  if (fd < 0)
    return false;
  uint64_t before = value_of(fd);
  bool counted = before + more <= limit && write_counter(fd, before + more);
  close(fd);
  return counted;
}

int hw_use(int gpu) {
  char path[512];
  counter_path(path, sizeof path, "load", gpu, "users");
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0)
    return fd;
  (void)!fchmod(fd, 0666);
  flock(fd, LOCK_SH);
  return fd;
}

uint64_t hw_moved(int gpu) { return hw_counter("load", gpu, ""); }
uint64_t hw_nvlink_sent(int gpu) { return hw_counter("load", gpu, "nvlink"); }

bool hw_lost(int gpu) {
  uint64_t limit;
  return hw_gpu_number(gpu, "falls_off_after_bytes", &limit) && hw_moved(gpu) >= limit;
}

bool hw_add_moved(int gpu, uint64_t bytes) {
  uint64_t limit;
  int fd = open_counter("load", gpu, "");
  if (fd < 0)
    return false;
  uint64_t before = value_of(fd);
  bool written = write_counter(fd, before + bytes);
  if (written && hw_gpu_number(gpu, "falls_off_after_bytes", &limit) && before < limit && before + bytes >= limit)
    hw_log_fallen_off(gpu);
  close(fd);
  return written;
}

/* Seconds since the GPU last moved a byte; negative where it has not since power-on. */
static double idle_seconds(int gpu) {
  char path[512];
  struct stat info;
  struct timespec now;
  counter_path(path, sizeof path, "load", gpu, "");
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

uint64_t hw_moved_hotter_than(int gpu, double heat) {
  double reached = heat < 1 ? -log(1 - heat) * WARMING_BYTES : INFINITY;
  uint64_t moved = hw_moved(gpu);
  return (double)moved > reached ? moved - (uint64_t)reached : 0;
}

bool hw_busy(int gpu) {
  double idle = idle_seconds(gpu);
  return idle >= 0 && idle < 2;
}

double hw_clock_fraction(int gpu) {
  double fraction;
  return hw_gpu_real(gpu, "clock_fraction", &fraction) && fraction > 0 && fraction < 1 ? fraction : 1;
}
