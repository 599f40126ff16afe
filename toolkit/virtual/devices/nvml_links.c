/* NVLink and the fabric. */
#include "nvml_device.h"

#include <stdio.h>
#include <string.h>

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
