/* NVLink, the fabric, and the numbered fields. */
#include "nvml_device.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

nvmlReturn_t nvml_link_active(int gpu, unsigned int link, bool *active) {
  char key[24];
  uint64_t state;
  snprintf(key, sizeof key, "nvlink.%u", link);
  if (!hw_gpu_number(gpu, key, &state))
    return NVML_ERROR_INVALID_ARGUMENT;
  *active = state != 0;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int link, nvmlEnableState_t *state) {
  bool active;
  REQUIRE(state);
  ENTER(device);
  nvmlReturn_t result = nvml_link_active(gpu, link, &active);
  if (result == NVML_SUCCESS)
    *state = active ? NVML_FEATURE_ENABLED : NVML_FEATURE_DISABLED;
  return result;
}

nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t device, unsigned int link, unsigned int *version) {
  bool active;
  REQUIRE(version);
  ENTER(device);
  nvmlReturn_t result = nvml_link_active(gpu, link, &active);
  return result == NVML_SUCCESS ? nvml_state_number(device, "nvlink_version", version) : result;
}

nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned int link,
                                                 nvmlIntNvLinkDeviceType_t *type) {
  bool active;
  REQUIRE(type);
  ENTER(device);
  nvmlReturn_t result = nvml_link_active(gpu, link, &active);
  if (result == NVML_SUCCESS)
    *type = active ? NVML_NVLINK_DEVICE_TYPE_SWITCH : NVML_NVLINK_DEVICE_TYPE_UNKNOWN;
  return result;
}

nvmlReturn_t nvmlDeviceGetNvLinkErrorCounter(nvmlDevice_t device, unsigned int link, nvmlNvLinkErrorCounter_t counter,
                                             unsigned long long *count) {
  bool active;
  REQUIRE(count && counter < NVML_NVLINK_ERROR_COUNT);
  ENTER(device);
  nvmlReturn_t result = nvml_link_active(gpu, link, &active);
  if (result == NVML_SUCCESS && !active)
    return NVML_ERROR_NOT_SUPPORTED; /* a link that is down has no counters to read */
  *count = 0;
  return result;
}

static nvmlGpuFabricState_t fabric_state(int gpu) {
  uint64_t links;
  if (!hw_gpu_number(gpu, "nvlinks", &links) || !links)
    return NVML_GPU_FABRIC_STATE_NOT_SUPPORTED;
  return hw_fabric_ready() ? NVML_GPU_FABRIC_STATE_COMPLETED : NVML_GPU_FABRIC_STATE_IN_PROGRESS;
}

/* A single node's fabric has cluster 0 and clique 0, and a Hopper GPU tells no health (captures of H100 nodes). */
nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, nvmlGpuFabricInfoV_t *info) {
  REQUIRE(info);
  if (info->version != nvmlGpuFabricInfo_v2 && info->version != nvmlGpuFabricInfo_v3)
    return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  ENTER(device);
  memset(info->clusterUuid, 0, sizeof info->clusterUuid);
  info->status = NVML_SUCCESS;
  info->cliqueId = 0;
  info->state = fabric_state(gpu);
  info->healthMask = 0;
  if (info->version == nvmlGpuFabricInfo_v3)
    info->healthSummary = NVML_GPU_FABRIC_HEALTH_SUMMARY_NOT_SUPPORTED;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuFabricInfo(nvmlDevice_t device, nvmlGpuFabricInfo_t *info) {
  REQUIRE(info);
  ENTER(device);
  *info = (nvmlGpuFabricInfo_t){.status = NVML_SUCCESS, .state = fabric_state(gpu)};
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetC2cModeInfoV(nvmlDevice_t device, nvmlC2cModeInfo_v1_t *info) {
  REQUIRE(info);
  ENTER(device);
  info->isC2cEnabled = 0;
  return NVML_SUCCESS;
}

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

static nvmlReturn_t read_field(int gpu, nvmlFieldValue_t *field) {
  unsigned int all;
  switch (field->fieldId) {
  case NVML_FI_DEV_ECC_CURRENT:
  case NVML_FI_DEV_ECC_PENDING: return as_u32(field, 1);
  case NVML_FI_DEV_ECC_SBE_VOL_TOTAL:
  case NVML_FI_DEV_ECC_SBE_AGG_TOTAL:
  case NVML_FI_DEV_ECC_SBE_VOL_DEV:
  case NVML_FI_DEV_ECC_SBE_AGG_DEV: return as_u64(field, nvml_corrected_errors(gpu));
  case NVML_FI_DEV_ECC_DBE_VOL_TOTAL:
  case NVML_FI_DEV_ECC_DBE_AGG_TOTAL:
  case NVML_FI_DEV_ECC_DBE_VOL_DEV:
  case NVML_FI_DEV_ECC_DBE_AGG_DEV: return as_u64(field, 0);
  case NVML_FI_DEV_PERF_POLICY_POWER:
  case NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN:
  case NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN: return as_u64(field, 0);
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
  case NVML_FI_DEV_GET_GPU_RECOVERY_ACTION: return as_u32(field, NVML_GPU_RECOVERY_ACTION_NONE);
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
