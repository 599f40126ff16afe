/* How a GPU is: temperature, power, clocks, PCIe. */
#include "nvml_device.h"

#include <time.h>

/* Of an H100: at a margin of 0 (87 degrees here) the driver slows the GPU down, 2 degrees on the GPU does so itself. */
enum { IDLE_C = 29, FULL_LOAD_C = 67, MEMORY_OFFSET_C = 8 };
enum { LIMIT_C = 87, SLOWDOWN_MARGIN_C = -2, SHUTDOWN_MARGIN_C = -8 };

static double rise_c(int gpu) {
  double full;
  return (hw_gpu_real(gpu, "full_load_celsius", &full) ? full : FULL_LOAD_C) - IDLE_C;
}

int nvml_temperature_c(int gpu) { return IDLE_C + gpu % 4 + (int)(rise_c(gpu) * hw_heat(gpu)); }
int nvml_memory_temperature_c(int gpu) { return nvml_temperature_c(gpu) + MEMORY_OFFSET_C; }

static int margin_c(int gpu) { return LIMIT_C - nvml_temperature_c(gpu); }

int nvml_margin_limit_c(unsigned int field) {
  switch (field) {
  case NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT: return SHUTDOWN_MARGIN_C;
  case NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT: return SLOWDOWN_MARGIN_C;
  default: /* memory and GPU, at full speed */ return 0;
  }
}

/* A nanosecond for every byte the GPU moved while its margin was that small: it grows under load alone. */
static unsigned long long slowed_ns(int gpu, int margin) {
  double warmer = LIMIT_C - margin - IDLE_C - gpu % 4;
  return hw_moved_hotter_than(gpu, warmer / rise_c(gpu));
}

unsigned long long nvml_sw_thermal_ns(int gpu) { return slowed_ns(gpu, 0); }
unsigned long long nvml_hw_thermal_ns(int gpu) { return slowed_ns(gpu, SLOWDOWN_MARGIN_C); }

/* Share of its clocks the GPU has now: a hot one halves them itself. */
static double clock_share(int gpu) {
  return margin_c(gpu) <= SLOWDOWN_MARGIN_C ? hw_clock_fraction(gpu) / 2 : hw_clock_fraction(gpu);
}

nvmlReturn_t nvml_power_mw(int gpu, unsigned int *out) {
  uint64_t idle, limit;
  if (!hw_gpu_number(gpu, "idle_power_mw", &idle) || !hw_gpu_number(gpu, "power_limit_mw", &limit))
    return NVML_ERROR_NOT_SUPPORTED;
  double share = hw_busy(gpu) ? 0.93 * clock_share(gpu) : 0.1 * hw_heat(gpu);
  *out = (unsigned int)((double)idle + (double)(limit - idle) * share);
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
  margin->marginTemperature = margin_c(gpu);
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

/* mJ since the driver was loaded: idle power all the time, and 0.65 J for every MB moved. */
nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *millijoules) {
  uint64_t idle;
  struct timespec now;
  REQUIRE(millijoules);
  ENTER(device);
  if (!hw_gpu_number(gpu, "idle_power_mw", &idle))
    return NVML_ERROR_NOT_SUPPORTED;
  clock_gettime(CLOCK_MONOTONIC, &now);
  *millijoules = (unsigned long long)((double)idle * (double)now.tv_sec + 0.00065 * (double)hw_moved(gpu));
  return NVML_SUCCESS;
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
      *megahertz = (unsigned int)(*megahertz * clock_share(gpu));
    return result;
  }
  return type == NVML_CLOCK_GRAPHICS || type == NVML_CLOCK_SM ? nvml_state_number(device, "idle_clock_mhz", megahertz)
                                                              : NVML_ERROR_NOT_SUPPORTED;
}

/* A slow board says why under load: the external power brake holds its clocks down. A hot one says it until it is
   cooler again. */
nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons) {
  REQUIRE(reasons);
  ENTER(device);
  *reasons = !hw_busy(gpu) ? nvmlClocksEventReasonGpuIdle : nvmlClocksEventReasonNone;
  if (hw_busy(gpu) && hw_clock_fraction(gpu) < 1)
    *reasons |= nvmlClocksThrottleReasonHwSlowdown | nvmlClocksThrottleReasonHwPowerBrakeSlowdown;
  if (margin_c(gpu) <= 0)
    *reasons |= nvmlClocksEventReasonSwThermalSlowdown;
  if (margin_c(gpu) <= SLOWDOWN_MARGIN_C)
    *reasons |= nvmlClocksThrottleReasonHwSlowdown | nvmlClocksThrottleReasonHwThermalSlowdown;
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
/* A faulty link is as wide as it should be until it has work to do. */
nvmlReturn_t nvmlDeviceGetCurrPcieLinkWidth(nvmlDevice_t device, unsigned int *lanes) {
  uint64_t narrow;
  REQUIRE(lanes);
  ENTER(device);
  if (!hw_busy(gpu) || !hw_gpu_number(gpu, "pcie_width_loaded", &narrow))
    return nvml_state_number(device, "pcie_width", lanes);
  *lanes = (unsigned int)narrow;
  return NVML_SUCCESS;
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
