/* How a GPU is: memory and its errors, temperature, power, clocks, PCIe. */
#include "nvml_device.h"

#include <string.h>

enum { IDLE_C = 29, RISE_C = 38, MEMORY_OFFSET_C = 8, LIMIT_C = 87 };

unsigned long long nvml_corrected_errors(int gpu) {
  double per_gib;
  if (!hw_gpu_real(gpu, "ecc_corrected_per_gib", &per_gib))
    return 0;
  return (unsigned long long)((double)hw_moved(gpu) / (1 << 30) * per_gib);
}

int nvml_temperature_c(int gpu) { return IDLE_C + gpu % 4 + (int)(RISE_C * hw_heat(gpu)); }
int nvml_memory_temperature_c(int gpu) { return nvml_temperature_c(gpu) + MEMORY_OFFSET_C; }

nvmlReturn_t nvml_power_mw(int gpu, unsigned int *out) {
  uint64_t idle, limit;
  if (!hw_gpu_number(gpu, "idle_power_mw", &idle) || !hw_gpu_number(gpu, "power_limit_mw", &limit))
    return NVML_ERROR_NOT_SUPPORTED;
  double share = hw_busy(gpu) ? 0.93 * hw_clock_fraction(gpu) : 0.1 * hw_heat(gpu);
  *out = (unsigned int)((double)idle + (double)(limit - idle) * share);
  return NVML_SUCCESS;
}

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

/* Volatile and aggregate are the same here: a virtual board is as new as its last power-on. */
nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, nvmlMemoryErrorType_t type,
                                             nvmlEccCounterType_t counter, nvmlMemoryLocation_t location,
                                             unsigned long long *count) {
  REQUIRE(count && type < NVML_MEMORY_ERROR_TYPE_COUNT && counter < NVML_ECC_COUNTER_TYPE_COUNT);
  ENTER(device);
  switch (location) {
  case NVML_MEMORY_LOCATION_DRAM:
    *count = type == NVML_MEMORY_ERROR_TYPE_CORRECTED ? nvml_corrected_errors(gpu) : 0;
    return NVML_SUCCESS;
  case NVML_MEMORY_LOCATION_SRAM:
    *count = 0;
    return NVML_SUCCESS;
  default: /* since Ampere the parts of SRAM are counted together */
    return NVML_ERROR_NOT_SUPPORTED;
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

nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *corrected, unsigned int *uncorrected,
                                       unsigned int *pending, unsigned int *failure) {
  REQUIRE(corrected && uncorrected && pending && failure);
  ENTER(device);
  *corrected = *uncorrected = *pending = *failure = 0;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRowRemapperHistogram(nvmlDevice_t device, nvmlRowRemapperHistogramValues_t *values) {
  REQUIRE(values);
  memset(values, 0, sizeof *values);
  return nvml_state_number(device, "remap_banks", &values->max);
}

nvmlReturn_t nvmlDeviceGetRepairStatus(nvmlDevice_t device, nvmlRepairStatus_t *status) {
  REQUIRE(status);
  if (status->version != nvmlRepairStatus_v1)
    return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  ENTER(device);
  status->bChannelRepairPending = status->bTpcRepairPending = 0;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensor, unsigned int *celsius) {
  REQUIRE(celsius && sensor == NVML_TEMPERATURE_GPU);
  ENTER(device);
  *celsius = (unsigned int)nvml_temperature_c(gpu);
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature) {
  REQUIRE(temperature);
  if (temperature->version != nvmlTemperature_v1)
    return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  REQUIRE(temperature->sensorType == NVML_TEMPERATURE_GPU);
  ENTER(device);
  temperature->temperature = nvml_temperature_c(gpu);
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, nvmlMarginTemperature_t *margin) {
  REQUIRE(margin);
  if (margin->version != nvmlMarginTemperature_v1)
    return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  ENTER(device);
  margin->marginTemperature = LIMIT_C - nvml_temperature_c(gpu);
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, nvmlTemperatureThresholds_t threshold,
                                               unsigned int *celsius) {
  (void)threshold;
  REQUIRE(celsius);
  ENTER(device);
  return NVML_ERROR_NOT_SUPPORTED; /* Hopper tells the margin instead */
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *milliwatts) {
  REQUIRE(milliwatts);
  ENTER(device);
  return nvml_power_mw(gpu, milliwatts);
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int *milliwatts) {
  return nvml_state_number(device, "power_limit_mw", milliwatts);
}
nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned int *milliwatts) {
  return nvml_state_number(device, "power_limit_mw", milliwatts);
}
nvmlReturn_t nvmlDeviceGetPowerManagementDefaultLimit(nvmlDevice_t device, unsigned int *milliwatts) {
  return nvml_state_number(device, "power_limit_mw", milliwatts);
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization) {
  REQUIRE(utilization);
  ENTER(device);
  utilization->gpu = hw_busy(gpu) ? 100 : 0;
  utilization->memory = hw_busy(gpu) ? 87 : 0;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t device, nvmlPstates_t *state) {
  REQUIRE(state);
  ENTER(device);
  *state = NVML_PSTATE_0;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int *megahertz) {
  switch (type) {
  case NVML_CLOCK_GRAPHICS:
  case NVML_CLOCK_SM: return nvml_state_number(device, "sm_clock_mhz", megahertz);
  case NVML_CLOCK_MEM: return nvml_state_number(device, "memory_clock_mhz", megahertz);
  default: return NVML_ERROR_NOT_SUPPORTED;
  }
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int *megahertz) {
  ENTER(device);
  if (type == NVML_CLOCK_MEM || hw_busy(gpu)) {
    nvmlReturn_t result = nvmlDeviceGetMaxClockInfo(device, type, megahertz);
    if (result == NVML_SUCCESS && type != NVML_CLOCK_MEM)
      *megahertz = (unsigned int)(*megahertz * hw_clock_fraction(gpu));
    return result;
  }
  return type == NVML_CLOCK_GRAPHICS || type == NVML_CLOCK_SM ? nvml_state_number(device, "idle_clock_mhz", megahertz)
                                                              : NVML_ERROR_NOT_SUPPORTED;
}

/* A slow board says why under load: the external power brake holds its clocks down. */
nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons) {
  REQUIRE(reasons);
  ENTER(device);
  *reasons = !hw_busy(gpu) ? nvmlClocksEventReasonGpuIdle : nvmlClocksEventReasonNone;
  if (hw_busy(gpu) && hw_clock_fraction(gpu) < 1)
    *reasons = nvmlClocksThrottleReasonHwSlowdown | nvmlClocksThrottleReasonHwPowerBrakeSlowdown;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long *reasons) {
  return nvmlDeviceGetCurrentClocksEventReasons(device, reasons);
}

nvmlReturn_t nvmlDeviceGetCurrPcieLinkGeneration(nvmlDevice_t device, unsigned int *generation) {
  return nvml_state_number(device, "pcie_gen", generation);
}
nvmlReturn_t nvmlDeviceGetMaxPcieLinkGeneration(nvmlDevice_t device, unsigned int *generation) {
  return nvml_state_number(device, "pcie_gen", generation);
}
nvmlReturn_t nvmlDeviceGetGpuMaxPcieLinkGeneration(nvmlDevice_t device, unsigned int *generation) {
  return nvml_state_number(device, "pcie_gen", generation);
}
nvmlReturn_t nvmlDeviceGetCurrPcieLinkWidth(nvmlDevice_t device, unsigned int *lanes) {
  return nvml_state_number(device, "pcie_width", lanes);
}
nvmlReturn_t nvmlDeviceGetMaxPcieLinkWidth(nvmlDevice_t device, unsigned int *lanes) {
  return nvml_state_number(device, "pcie_width", lanes);
}
nvmlReturn_t nvmlDeviceGetPcieReplayCounter(nvmlDevice_t device, unsigned int *replays) {
  return nvml_state_number(device, "pcie_replays", replays);
}

/* The stand-ins keep no list of clients: always empty, as on a node where only a burn-in runs between its workloads. */
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
                                                     nvmlProcessInfo_t *infos) {
  (void)infos;
  REQUIRE(count);
  ENTER(device);
  *count = 0;
  return NVML_SUCCESS;
}
