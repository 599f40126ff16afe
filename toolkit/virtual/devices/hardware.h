/* The virtual node's hardware as the device libraries see it: the `state` file the virtual daemon writes, what each
   GPU has done and remembers, and the kernel log. Keys are described in toolkit/virtual/hardware.py.

   Every call reads what is true now; nothing is remembered between calls but the parsed text of an unchanged file.
   The folder is /run/hardware, or $RACKPROOF_HARDWARE where a test sets it. All calls may be made from any thread. */
#ifndef RACKPROOF_HARDWARE_H
#define RACKPROOF_HARDWARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { HW_MAX_GPUS = 16, HW_MAX_LINKS = 32, HW_TEXT = 128 };

/* False where there is no state to read: the machine has no GPUs, or no driver for them. */
bool hw_present(void);

/* Values by full key (`driver`). False, and nothing stored, where the state has no such key or it is no number. */
bool hw_text(const char *key, char *out, size_t size);
bool hw_number(const char *key, uint64_t *out);

/* Values of one GPU: `gpuN.KEY`, else `gpu.KEY`. */
bool hw_gpu_text(int gpu, const char *key, char *out, size_t size);
bool hw_gpu_number(int gpu, const char *key, uint64_t *out);
bool hw_gpu_real(int gpu, const char *key, double *out);

int hw_gpu_count(void);

/* Grows whenever the state's text has changed: what was read at the same generation is still true. */
uint64_t hw_generation(void);

/* Counters that processes share, in files FOLDER/gpuN[.NAME]: `load` is emptied at power-on, `inforom` never. Adding
   fails, and changes nothing, where it would lead over the limit or cannot be written down. */
uint64_t hw_counter(const char *folder, int gpu, const char *name);
bool hw_count(const char *folder, int gpu, const char *name, uint64_t more, uint64_t limit);

/* Bytes the GPU has moved since power-on; bytes it has sent over NVLink. */
uint64_t hw_moved(int gpu);
uint64_t hw_nvlink_sent(int gpu);

/* Adds to the bytes moved; false where that cannot be written down. The caller that takes a GPU over its limit writes
   the Xid 79 to the kernel log, once. */
bool hw_add_moved(int gpu, uint64_t bytes);

/* True from the moment the GPU has fallen off the bus. */
bool hw_lost(int gpu);
void hw_log_fallen_off(int gpu);

/* Lets the faults `row_remap` and `double_bit` strike when they are due: counters, InfoROM, kernel log. True for the
   one caller whose work the double-bit error ends. */
void hw_remap_row(int gpu);
bool hw_double_bit(int gpu);

/* What the board remembers: remapped_corrected, remapped_uncorrected, remap_pending, dram_uncorrected. */
uint64_t hw_inforom(int gpu, const char *name);

/* Says, until the descriptor is closed, that this process uses the GPU, which cannot be reset as long. -1 where that
   cannot be written down. */
int hw_use(int gpu);

/* How hot the GPU is: 0 idle, 1 long under load; the bytes it moved while it was hotter than that. `busy` answers for
   the last two seconds only. */
double hw_heat(int gpu);
uint64_t hw_moved_hotter_than(int gpu, double heat);
bool hw_busy(int gpu);

/* Share 0..1 of its clocks the GPU reaches under load. */
double hw_clock_fraction(int gpu);

/* True once a fabric manager of the driver's version has programmed the NVSwitches. Without it CUDA does not start. */
bool hw_fabric_ready(void);

/* For the parts of this library: a file of the hardware folder; a text that is a whole number. */
void hw_path(char *out, size_t size, const char *name);
bool hw_as_number(const char *text, uint64_t *out);

#ifdef __cplusplus
}
#endif

#endif
