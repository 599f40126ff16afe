/* What the parts of the NVML stand-in share: from an NVML handle to a GPU index, and text out to a caller's buffer. */
#ifndef RACKPROOF_NVML_DEVICE_H
#define RACKPROOF_NVML_DEVICE_H

/* We define the versioned functions and the old ones beside them. */
#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include <nvml.h>

#include "hardware.h"

/* The GPU behind a handle: SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, or GPU_IS_LOST once it has left the bus. */
nvmlReturn_t nvml_enter(nvmlDevice_t device, int *gpu);

/* Copies text with its end; INSUFFICIENT_SIZE where it does not fit. */
nvmlReturn_t nvml_copy(char *out, unsigned int size, const char *text);

/* A text or number of the state; NOT_SUPPORTED where the board has none. */
nvmlReturn_t nvml_state_text(nvmlDevice_t device, const char *key, char *out, unsigned int size);
nvmlReturn_t nvml_state_number(nvmlDevice_t device, const char *key, unsigned int *out);

/* Errors of DRAM; rows remapped for a reason (names of hw_inforom). */
unsigned long long nvml_dram_errors(int gpu, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter);
unsigned int nvml_remapped(int gpu, const char *why);

int nvml_temperature_c(int gpu);
int nvml_memory_temperature_c(int gpu);
/* The margin at which a field's limit is; for how long the driver, and the GPU, have slowed it down for its heat. */
int nvml_margin_limit_c(unsigned int field);
unsigned long long nvml_sw_thermal_ns(int gpu);
unsigned long long nvml_hw_thermal_ns(int gpu);
nvmlReturn_t nvml_power_mw(int gpu, unsigned int *out);

/* SUCCESS and whether the link is up; INVALID_ARGUMENT where the GPU has no such link. */
nvmlReturn_t nvml_link_active(int gpu, unsigned int link, bool *active);

/* First line of every function on a device: leaves it unless the GPU can answer. */
#define ENTER(device)                                                                                                  \
  int gpu;                                                                                                             \
  do {                                                                                                                 \
    nvmlReturn_t entered = nvml_enter(device, &gpu);                                                                   \
    if (entered != NVML_SUCCESS)                                                                                       \
      return entered;                                                                                                  \
  } while (0)

#define REQUIRE(condition)                                                                                             \
  do {                                                                                                                 \
    if (!(condition))                                                                                                  \
      return NVML_ERROR_INVALID_ARGUMENT;                                                                              \
  } while (0)

#endif
