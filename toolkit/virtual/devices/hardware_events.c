/* What befalls a GPU, in the kernel's log and in its InfoROM. Xid 63's text is that of NVIDIA's open kernel module
   (ras_events.c), the others' are those of published logs of drivers 535 to 580. */
#include "hardware.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define INFOROM "inforom"
#define ADDRESS_OF_ROW(times) (UINT64_C(0x3a5b4000) + ((times) << 14))

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

/* Appends a record to the kernel log. Records of one event may have others between them, as on a real node. */
__attribute__((format(printf, 1, 2))) static void log_kernel(const char *format, ...) {
  char path[512], text[256];
  struct timespec now;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  hw_path(path, sizeof path, "kmsg");
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0)
    return;
  flock(fd, LOCK_EX);
  clock_gettime(CLOCK_MONOTONIC, &now);
  int64_t microseconds = now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000;
  lseek(fd, 0, SEEK_END);
  dprintf(fd, "3,%" PRId64 ",%" PRId64 ",-;%s\n", last_sequence(fd) + 1, microseconds, text);
  close(fd);
}

/* The GPU's address as the driver writes it, DDDD:BB:DD.F; empty where the state has none. */
static void address_of(int gpu, char out[HW_TEXT]) {
  char pci[HW_TEXT];
  out[0] = 0;
  if (!hw_gpu_text(gpu, "pci", pci, sizeof pci) || strlen(pci) < 16)
    return;
  snprintf(out, HW_TEXT, "%s", pci + 4);
  for (char *c = out; *c; c++)
    *c = *c >= 'A' && *c <= 'F' ? (char)(*c + 32) : *c;
}

void hw_log_fallen_off(int gpu) {
  char pci[HW_TEXT];
  address_of(gpu, pci);
  log_kernel("NVRM: Xid (PCI:%.10s): 79, GPU has fallen off the bus.", pci);
  log_kernel("NVRM: GPU %s: GPU has fallen off the bus.", pci);
}

/* Whether a fault that strikes after so many bytes, and so many times in the board's life, strikes now: never twice
   without a reset between, because the row that failed waits for it. Among many callers one is told so. */
static bool strikes(int gpu, const char *fault, uint64_t *time) {
  char key[64];
  uint64_t limit, times;
  snprintf(key, sizeof key, "%s_after_bytes", fault);
  if (!hw_gpu_number(gpu, key, &limit) || hw_moved(gpu) < limit)
    return false;
  snprintf(key, sizeof key, "%s_times", fault);
  *time = hw_counter(INFOROM, gpu, fault);
  if ((hw_gpu_number(gpu, key, &times) ? times : 1) <= *time || !hw_count(INFOROM, gpu, "remap_pending", 1, 1))
    return false;
  return hw_count(INFOROM, gpu, fault, 1, UINT64_MAX);
}

/* The row is taken out of use at the next reset; until then the driver wants one. */
static void log_remap(const char *pci, uint64_t address) {
  log_kernel("NVRM: Xid (PCI:%.10s): 63, pid=%d, name=python3, Row Remapper: New row (0x%016" PRIx64
             ") marked for remapping, reset gpu to activate.", pci, getpid(), address);
}

static void log_recovery(const char *pci) {
  log_kernel("NVRM: Xid (PCI:%.10s): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
             pci);
}

void hw_remap_row(int gpu) {
  char pci[HW_TEXT];
  uint64_t time;
  if (!strikes(gpu, "row_remap", &time))
    return;
  address_of(gpu, pci);
  hw_count(INFOROM, gpu, "remapped_corrected", 1, UINT64_MAX);
  log_remap(pci, ADDRESS_OF_ROW(time));
  log_recovery(pci);
}

bool hw_double_bit(int gpu) {
  char pci[HW_TEXT];
  uint64_t time;
  if (!strikes(gpu, "double_bit", &time))
    return false;
  uint64_t address = ADDRESS_OF_ROW(time + 16);
  address_of(gpu, pci);
  hw_count("load", gpu, "dram_uncorrected", 1, UINT64_MAX);
  hw_count(INFOROM, gpu, "dram_uncorrected", 1, UINT64_MAX);
  hw_count(INFOROM, gpu, "remapped_uncorrected", 1, UINT64_MAX);
  log_kernel("NVRM: Xid (PCI:%.10s): 171, pid=%d, name=python3, Uncorrectable DRAM error in FBPA 3 subpartition 0 "
             "physAddr 0x%" PRIx64, pci, getpid(), address);
  log_kernel("NVRM: Xid (PCI:%.10s): 48, pid=%d, name=python3, An uncorrectable double bit error (DBE) has been "
             "detected on GPU in the framebuffer at physAddr 0x%" PRIx64 " partition 3, subpartition 0.", pci, getpid(),
             address);
  log_remap(pci, address);
  log_kernel("NVRM: Xid (PCI:%.10s): 94, pid=%d, name=python3, Contained: SM (0x1). RST: No, D-RST: No", pci, getpid());
  log_recovery(pci);
  return true;
}

uint64_t hw_inforom(int gpu, const char *name) { return hw_counter(INFOROM, gpu, name); }
