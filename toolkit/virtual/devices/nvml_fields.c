/* The numbered fields. */
#include "nvml_device.h"

#include <time.h>

static nvmlReturn_t as_u64(nvmlFieldValue_t *field, unsigned long long value) {
  field->valueType = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
  field->value.ullVal = value;
  return NVML_SUCCESS;
}

static nvmlReturn_t as_u32(nvmlFieldValue_t *field, unsigned int value) {
  field->valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
  field->value.uiVal = value;
  return NVML_SUCCESS;
}

static nvmlReturn_t state_field(int gpu, const char *key, nvmlFieldValue_t *field) {
  uint64_t value;
  return hw_gpu_number(gpu, key, &value) ? as_u32(field, (unsigned int)value) : NVML_ERROR_NOT_SUPPORTED;
}

static unsigned int active_links(int gpu, unsigned int *all) {
  unsigned int active = 0;
  bool up;
  *all = 0;
  while (*all < HW_MAX_LINKS && nvml_link_active(gpu, *all, &up) == NVML_SUCCESS) {
    active += up;
    ++*all;
  }
  return active;
}

/* Fields of one link, named by scopeId. */
static nvmlReturn_t link_field(int gpu, nvmlFieldValue_t *field) {
  bool active;
  nvmlReturn_t result = nvml_link_active(gpu, field->scopeId, &active);
  if (result != NVML_SUCCESS)
    return result;
  switch (field->fieldId) {
  case NVML_FI_DEV_NVLINK_GET_STATE: return as_u32(field, active);
  case NVML_FI_DEV_NVLINK_GET_VERSION: return state_field(gpu, "nvlink_version", field);
  case NVML_FI_DEV_NVLINK_GET_SPEED: return active ? state_field(gpu, "nvlink_mb_per_s", field) : as_u32(field, 0);
  default: /* the error counters */ return active ? as_u64(field, 0) : NVML_ERROR_NOT_SUPPORTED;
  }
}

/* KiB over one link, or over all for a scope that is no link. The load spreads evenly over the links that are up. */
static nvmlReturn_t throughput_field(int gpu, nvmlFieldValue_t *field) {
  unsigned int all, up = active_links(gpu, &all);
  unsigned long long total = hw_nvlink_sent(gpu) / 1024;
  bool active;
  if (!all)
    return NVML_ERROR_NOT_SUPPORTED;
  if (nvml_link_active(gpu, field->scopeId, &active) != NVML_SUCCESS)
    return as_u64(field, total);
  return as_u64(field, active ? total / up : 0);
}

static nvmlReturn_t power_field(int gpu, nvmlFieldValue_t *field) {
  unsigned int milliwatts;
  nvmlReturn_t result = nvml_power_mw(gpu, &milliwatts);
  return result == NVML_SUCCESS ? as_u32(field, milliwatts) : result;
}

/* Errors of DRAM and remapped rows; NOT_FOUND for a field that is neither. */
static nvmlReturn_t memory_field(int gpu, nvmlFieldValue_t *field) {
  const nvmlMemoryErrorType_t corrected = NVML_MEMORY_ERROR_TYPE_CORRECTED;
  const nvmlMemoryErrorType_t uncorrected = NVML_MEMORY_ERROR_TYPE_UNCORRECTED;
  switch (field->fieldId) {
  case NVML_FI_DEV_ECC_SBE_VOL_TOTAL:
  case NVML_FI_DEV_ECC_SBE_VOL_DEV: return as_u64(field, nvml_dram_errors(gpu, corrected, NVML_VOLATILE_ECC));
  case NVML_FI_DEV_ECC_SBE_AGG_TOTAL:
  case NVML_FI_DEV_ECC_SBE_AGG_DEV: return as_u64(field, nvml_dram_errors(gpu, corrected, NVML_AGGREGATE_ECC));
  case NVML_FI_DEV_ECC_DBE_VOL_TOTAL:
  case NVML_FI_DEV_ECC_DBE_VOL_DEV: return as_u64(field, nvml_dram_errors(gpu, uncorrected, NVML_VOLATILE_ECC));
  case NVML_FI_DEV_ECC_DBE_AGG_TOTAL:
  case NVML_FI_DEV_ECC_DBE_AGG_DEV: return as_u64(field, nvml_dram_errors(gpu, uncorrected, NVML_AGGREGATE_ECC));
  case NVML_FI_DEV_REMAPPED_COR: return as_u32(field, nvml_remapped(gpu, "remapped_corrected"));
  case NVML_FI_DEV_REMAPPED_UNC: return as_u32(field, nvml_remapped(gpu, "remapped_uncorrected"));
  case NVML_FI_DEV_REMAPPED_PENDING: return as_u32(field, nvml_remapped(gpu, "remap_pending"));
  case NVML_FI_DEV_REMAPPED_FAILURE: return as_u32(field, 0);
  default: return NVML_ERROR_NOT_FOUND;
  }
}

static nvmlReturn_t as_signed(nvmlFieldValue_t *field, int value) {
  field->valueType = NVML_VALUE_TYPE_SIGNED_INT;
  field->value.siVal = value;
  return NVML_SUCCESS;
}

/* A remapped row that waits for a reset is all that a virtual board wants one for. */
static unsigned int recovery_action(int gpu) {
  return nvml_remapped(gpu, "remap_pending") ? NVML_GPU_RECOVERY_ACTION_GPU_RESET : NVML_GPU_RECOVERY_ACTION_NONE;
}

static nvmlReturn_t read_field(int gpu, nvmlFieldValue_t *field) {
  unsigned int all;
  nvmlReturn_t result = memory_field(gpu, field);
  if (result != NVML_ERROR_NOT_FOUND)
    return result;
  switch (field->fieldId) {
  case NVML_FI_DEV_ECC_CURRENT:
  case NVML_FI_DEV_ECC_PENDING: return as_u32(field, 1);
  case NVML_FI_DEV_PERF_POLICY_POWER: return as_u64(field, 0);
  case NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN: return as_u64(field, nvml_sw_thermal_ns(gpu));
  case NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN: return as_u64(field, nvml_hw_thermal_ns(gpu));
  case NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN: /* ns: a nanosecond a byte, so it grows under load */
    return as_u64(field, hw_clock_fraction(gpu) < 1 ? hw_moved(gpu) : 0);
  case NVML_FI_DEV_MEMORY_TEMP: return as_u32(field, (unsigned int)nvml_memory_temperature_c(gpu));
  case NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON: return state_field(gpu, "nvlink_mb_per_s", field);
  case NVML_FI_DEV_NVLINK_LINK_COUNT: active_links(gpu, &all); return as_u32(field, all);
  case NVML_FI_DEV_PCIE_REPLAY_COUNTER: return state_field(gpu, "pcie_replays", field);
  case NVML_FI_DEV_PCIE_REPLAY_ROLLOVER_COUNTER: return as_u32(field, 0);
  case NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX:
  case NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX: return throughput_field(gpu, field);
  case NVML_FI_DEV_REMAPPED_COR:
  case NVML_FI_DEV_REMAPPED_UNC:
  case NVML_FI_DEV_REMAPPED_PENDING:
  case NVML_FI_DEV_REMAPPED_FAILURE: return as_u32(field, 0);
  case NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY:
  case NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY:
  case NVML_FI_DEV_NVLINK_ERROR_DL_CRC:
  case NVML_FI_DEV_NVLINK_GET_SPEED:
  case NVML_FI_DEV_NVLINK_GET_STATE:
  case NVML_FI_DEV_NVLINK_GET_VERSION: return link_field(gpu, field);
  case NVML_FI_DEV_POWER_AVERAGE:
  case NVML_FI_DEV_POWER_INSTANT: return power_field(gpu, field);
  case NVML_FI_DEV_POWER_MAX_LIMIT:
  case NVML_FI_DEV_POWER_DEFAULT_LIMIT:
  case NVML_FI_DEV_POWER_CURRENT_LIMIT: return state_field(gpu, "power_limit_mw", field);
  case NVML_FI_DEV_GET_GPU_RECOVERY_ACTION: return as_u32(field, recovery_action(gpu));
  case NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT:
  case NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT:
  case NVML_FI_DEV_TEMPERATURE_MEM_MAX_TLIMIT:
  case NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT: return as_signed(field, nvml_margin_limit_c(field->fieldId));
  default: return NVML_ERROR_NOT_SUPPORTED;
  }
}

/* The call succeeds as a whole; every element has its own result. */
nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values) {
  struct timespec now;
  REQUIRE(values && count > 0);
  ENTER(device);
  clock_gettime(CLOCK_REALTIME, &now);
  for (int i = 0; i < count; i++) {
    values[i].timestamp = now.tv_sec * 1000000LL + now.tv_nsec / 1000;
    values[i].latencyUsec = 0;
    values[i].nvmlReturn = read_field(gpu, &values[i]);
  }
  return NVML_SUCCESS;
}
