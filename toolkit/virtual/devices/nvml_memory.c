/* A GPU's memory: how much, its errors, its remapped rows. */
#include "nvml_device.h"

static nvmlReturn_t memory_sizes(nvmlDevice_t device, uint64_t *total, uint64_t *reserved) {
  ENTER(device);
  bool known = hw_gpu_number(gpu, "memory_bytes", total) && hw_gpu_number(gpu, "memory_reserved_bytes", reserved);
  return known ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
  uint64_t total, reserved;
  REQUIRE(memory);
  nvmlReturn_t result = memory_sizes(device, &total, &reserved);
  if (result == NVML_SUCCESS) /* version 1 counts the reserved bytes as used */
    *memory = (nvmlMemory_t){.total = total, .free = total - reserved, .used = reserved};
  return result;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
  uint64_t total, reserved;
  REQUIRE(memory);
  if (memory->version != nvmlMemory_v2)
    return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  nvmlReturn_t result = memory_sizes(device, &total, &reserved);
  if (result == NVML_SUCCESS) {
    memory->total = total;
    memory->reserved = reserved;
    memory->free = total - reserved;
    memory->used = 0;
  }
  return result;
}

nvmlReturn_t nvmlDeviceGetMemoryBusWidth(nvmlDevice_t device, unsigned int *bits) {
  return nvml_state_number(device, "memory_bus_bits", bits);
}

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, nvmlEnableState_t *current, nvmlEnableState_t *pending) {
  REQUIRE(current && pending);
  ENTER(device);
  *current = *pending = NVML_FEATURE_ENABLED;
  return NVML_SUCCESS;
}

/* Volatile counts begin at power-on and at a reset; the InfoROM keeps those of before for the aggregate. */
unsigned long long nvml_dram_errors(int gpu, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter) {
  double per_gib;
  if (type == NVML_MEMORY_ERROR_TYPE_UNCORRECTED)
    return counter == NVML_VOLATILE_ECC ? hw_counter("load", gpu, "dram_uncorrected")
                                        : hw_inforom(gpu, "dram_uncorrected");
  unsigned long long before = counter == NVML_VOLATILE_ECC ? 0 : hw_inforom(gpu, "dram_corrected");
  if (!hw_gpu_real(gpu, "ecc_corrected_per_gib", &per_gib))
    return before;
  return before + (unsigned long long)((double)hw_moved(gpu) / (1 << 30) * per_gib);
}

nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, nvmlMemoryErrorType_t type,
                                             nvmlEccCounterType_t counter, nvmlMemoryLocation_t location,
                                             unsigned long long *count) {
  REQUIRE(count && type < NVML_MEMORY_ERROR_TYPE_COUNT && counter < NVML_ECC_COUNTER_TYPE_COUNT);
  ENTER(device);
  switch (location) {
  case NVML_MEMORY_LOCATION_DRAM: *count = nvml_dram_errors(gpu, type, counter); return NVML_SUCCESS;
  case NVML_MEMORY_LOCATION_SRAM: *count = 0; return NVML_SUCCESS;
  default: /* since Ampere the parts of SRAM are counted together */ return NVML_ERROR_NOT_SUPPORTED;
  }
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter,
                                         unsigned long long *count) {
  return nvmlDeviceGetMemoryErrorCounter(device, type, counter, NVML_MEMORY_LOCATION_DRAM, count);
}

nvmlReturn_t nvmlDeviceGetSramEccErrorStatus(nvmlDevice_t device, nvmlEccSramErrorStatus_t *status) {
  REQUIRE(status);
  if (status->version != nvmlEccSramErrorStatus_v1)
    return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  ENTER(device);
  *status = (nvmlEccSramErrorStatus_t){.version = nvmlEccSramErrorStatus_v1};
  return NVML_SUCCESS;
}

unsigned int nvml_remapped(int gpu, const char *why) { return (unsigned int)hw_inforom(gpu, why); }

nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *corrected, unsigned int *uncorrected,
                                       unsigned int *pending, unsigned int *failure) {
  REQUIRE(corrected && uncorrected && pending && failure);
  ENTER(device);
  *corrected = nvml_remapped(gpu, "remapped_corrected");
  *uncorrected = nvml_remapped(gpu, "remapped_uncorrected");
  *pending = nvml_remapped(gpu, "remap_pending");
  *failure = 0;
  return NVML_SUCCESS;
}

/* Every remapped row is in a bank of its own, which has then fewer spare rows. */
nvmlReturn_t nvmlDeviceGetRowRemapperHistogram(nvmlDevice_t device, nvmlRowRemapperHistogramValues_t *values) {
  uint64_t banks;
  REQUIRE(values);
  ENTER(device);
  if (!hw_gpu_number(gpu, "remap_banks", &banks))
    return NVML_ERROR_NOT_SUPPORTED;
  unsigned int used = nvml_remapped(gpu, "remapped_corrected") + nvml_remapped(gpu, "remapped_uncorrected");
  *values = (nvmlRowRemapperHistogramValues_t){.max = (unsigned int)banks - used, .high = used};
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRepairStatus(nvmlDevice_t device, nvmlRepairStatus_t *status) {
  REQUIRE(status);
  if (status->version != nvmlRepairStatus_v1)
    return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  ENTER(device);
  status->bChannelRepairPending = status->bTpcRepairPending = 0;
  return NVML_SUCCESS;
}
