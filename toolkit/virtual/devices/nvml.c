/* libnvidia-ml.so.1 of a virtual node: the library itself, and who a GPU is. Compiled against NVIDIA's own nvml.h, so
   a wrong prototype or structure does not compile. A function we leave out is a missing symbol: pynvml says
   FunctionNotFound, as with an old driver. */
#include "nvml_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int users; /* calls of nvmlInit without their nvmlShutdown */

nvmlReturn_t nvmlInitWithFlags(unsigned int flags) {
  (void)flags;
  if (!hw_present())
    return NVML_ERROR_DRIVER_NOT_LOADED;
  __atomic_add_fetch(&users, 1, __ATOMIC_SEQ_CST);
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlInit(void) { return nvmlInitWithFlags(0); }
nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

nvmlReturn_t nvmlShutdown(void) {
  int before = __atomic_load_n(&users, __ATOMIC_SEQ_CST);
  while (before > 0)
    if (__atomic_compare_exchange_n(&users, &before, before - 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
      return NVML_SUCCESS;
  return NVML_ERROR_UNINITIALIZED;
}

/* NVIDIA's own sentences (nvml.h and pynvml's table). */
const char *nvmlErrorString(nvmlReturn_t result) {
  switch (result) {
  case NVML_SUCCESS: return "The operation was successful";
  case NVML_ERROR_UNINITIALIZED: return "Uninitialized";
  case NVML_ERROR_INVALID_ARGUMENT: return "Invalid Argument";
  case NVML_ERROR_NOT_SUPPORTED: return "Not Supported";
  case NVML_ERROR_NO_PERMISSION: return "Insufficient Permissions";
  case NVML_ERROR_NOT_FOUND: return "Not Found";
  case NVML_ERROR_INSUFFICIENT_SIZE: return "Insufficient Size";
  case NVML_ERROR_DRIVER_NOT_LOADED: return "Driver Not Loaded";
  case NVML_ERROR_TIMEOUT: return "Timeout";
  case NVML_ERROR_FUNCTION_NOT_FOUND: return "Function Not Found";
  case NVML_ERROR_GPU_IS_LOST: return "GPU is lost";
  case NVML_ERROR_ARGUMENT_VERSION_MISMATCH: return "Argument version mismatch";
  default: return "Unknown Error";
  }
}

nvmlReturn_t nvml_enter(nvmlDevice_t device, int *gpu) {
  if (!__atomic_load_n(&users, __ATOMIC_SEQ_CST))
    return NVML_ERROR_UNINITIALIZED;
  intptr_t index = (intptr_t)device - 1;
  if (index < 0 || index >= hw_gpu_count())
    return NVML_ERROR_INVALID_ARGUMENT;
  *gpu = (int)index;
  return hw_lost(*gpu) ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
}

nvmlReturn_t nvml_copy(char *out, unsigned int size, const char *text) {
  REQUIRE(out);
  if (strlen(text) + 1 > size)
    return NVML_ERROR_INSUFFICIENT_SIZE;
  memcpy(out, text, strlen(text) + 1);
  return NVML_SUCCESS;
}

nvmlReturn_t nvml_state_text(nvmlDevice_t device, const char *key, char *out, unsigned int size) {
  char text[HW_TEXT];
  ENTER(device);
  return hw_gpu_text(gpu, key, text, sizeof text) ? nvml_copy(out, size, text) : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvml_state_number(nvmlDevice_t device, const char *key, unsigned int *out) {
  uint64_t value;
  REQUIRE(out);
  ENTER(device);
  if (!hw_gpu_number(gpu, key, &value))
    return NVML_ERROR_NOT_SUPPORTED;
  *out = (unsigned int)value;
  return NVML_SUCCESS;
}

static nvmlReturn_t system_text(const char *key, char *out, unsigned int size) {
  char text[HW_TEXT];
  if (!__atomic_load_n(&users, __ATOMIC_SEQ_CST))
    return NVML_ERROR_UNINITIALIZED;
  return hw_text(key, text, sizeof text) ? nvml_copy(out, size, text) : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *out, unsigned int size) { return system_text("driver", out, size); }

nvmlReturn_t nvmlSystemGetNVMLVersion(char *out, unsigned int size) {
  char driver[HW_TEXT], text[HW_TEXT + 8];
  nvmlReturn_t result = system_text("driver", driver, sizeof driver);
  if (result != NVML_SUCCESS)
    return result;
  snprintf(text, sizeof text, "13.%s", driver);
  return nvml_copy(out, size, text);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) {
  uint64_t value;
  REQUIRE(version);
  if (!hw_number("cuda", &value))
    return NVML_ERROR_NOT_SUPPORTED;
  *version = (int)value;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) { return nvmlSystemGetCudaDriverVersion(version); }

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
  REQUIRE(count);
  if (!__atomic_load_n(&users, __ATOMIC_SEQ_CST))
    return NVML_ERROR_UNINITIALIZED;
  *count = (unsigned int)hw_gpu_count();
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCount(unsigned int *count) { return nvmlDeviceGetCount_v2(count); }

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
  int gpu;
  REQUIRE(device);
  nvmlDevice_t handle = (nvmlDevice_t)((intptr_t)index + 1); /* never NULL */
  nvmlReturn_t result = nvml_enter(handle, &gpu);
  if (result == NVML_SUCCESS)
    *device = handle;
  return result;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device) {
  return nvmlDeviceGetHandleByIndex_v2(index, device);
}

static nvmlReturn_t handle_by(const char *key, const char *wanted, nvmlDevice_t *device) {
  char text[HW_TEXT];
  REQUIRE(wanted && device);
  for (int gpu = 0; gpu < hw_gpu_count(); gpu++)
    if (hw_gpu_text(gpu, key, text, sizeof text) && !strcasecmp(text, wanted))
      return nvmlDeviceGetHandleByIndex_v2((unsigned int)gpu, device);
  return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
  return handle_by("uuid", uuid, device);
}

nvmlReturn_t nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice_t *device) {
  return handle_by("serial", serial, device);
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device) {
  char full[32];
  unsigned int domain, bus, slot, function;
  REQUIRE(bus_id);
  if (sscanf(bus_id, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4)
    return NVML_ERROR_INVALID_ARGUMENT;
  snprintf(full, sizeof full, "%08X:%02X:%02X.%X", domain, bus, slot, function);
  return handle_by("pci", full, device);
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index) {
  REQUIRE(index);
  ENTER(device);
  *index = (unsigned int)gpu;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci) {
  char text[HW_TEXT];
  uint64_t number;
  unsigned int function;
  REQUIRE(pci);
  ENTER(device);
  memset(pci, 0, sizeof *pci);
  if (!hw_gpu_text(gpu, "pci", text, sizeof text) ||
      sscanf(text, "%x:%x:%x.%x", &pci->domain, &pci->bus, &pci->device, &function) != 4)
    return NVML_ERROR_NOT_SUPPORTED;
  snprintf(pci->busId, sizeof pci->busId, "%08X:%02X:%02X.0", pci->domain, pci->bus & 0xff, pci->device & 0xff);
  snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", pci->domain & 0xffff, pci->bus & 0xff,
           pci->device & 0xff);
  pci->pciDeviceId = hw_gpu_number(gpu, "pci_device_id", &number) ? (unsigned int)number : 0;
  pci->pciSubSystemId = hw_gpu_number(gpu, "pci_subsystem_id", &number) ? (unsigned int)number : 0;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *out, unsigned int size) {
  return nvml_state_text(device, "name", out, size);
}
nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *out, unsigned int size) {
  return nvml_state_text(device, "uuid", out, size);
}
nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *out, unsigned int size) {
  return nvml_state_text(device, "serial", out, size);
}
nvmlReturn_t nvmlDeviceGetVbiosVersion(nvmlDevice_t device, char *out, unsigned int size) {
  return nvml_state_text(device, "vbios", out, size);
}
nvmlReturn_t nvmlDeviceGetInforomImageVersion(nvmlDevice_t device, char *out, unsigned int size) {
  return nvml_state_text(device, "inforom", out, size);
}
nvmlReturn_t nvmlDeviceGetBoardPartNumber(nvmlDevice_t device, char *out, unsigned int size) {
  return nvml_state_text(device, "board_part", out, size);
}
nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *minor) {
  return nvml_state_number(device, "minor", minor);
}
nvmlReturn_t nvmlDeviceGetModuleId(nvmlDevice_t device, unsigned int *module) {
  REQUIRE(module);
  ENTER(device);
  *module = (unsigned int)gpu + 1;
  return NVML_SUCCESS;
}

/* A Hopper board does not know where it is (captures of H100 nodes say N/A). */
nvmlReturn_t nvmlDeviceGetPlatformInfo(nvmlDevice_t device, nvmlPlatformInfo_t *info) {
  REQUIRE(info);
  ENTER(device);
  return NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceValidateInforom(nvmlDevice_t device) {
  ENTER(device);
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
  unsigned int value;
  REQUIRE(major && minor);
  nvmlReturn_t result = nvml_state_number(device, "compute_capability", &value);
  if (result == NVML_SUCCESS) {
    *major = (int)(value / 10);
    *minor = (int)(value % 10);
  }
  return result;
}

nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t device, nvmlDeviceArchitecture_t *architecture) {
  int major, minor;
  REQUIRE(architecture);
  nvmlReturn_t result = nvmlDeviceGetCudaComputeCapability(device, &major, &minor);
  if (result == NVML_SUCCESS)
    *architecture = major == 9 ? NVML_DEVICE_ARCH_HOPPER : NVML_DEVICE_ARCH_UNKNOWN;
  return result;
}

nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, nvmlEnableState_t *mode) {
  REQUIRE(mode);
  ENTER(device);
  *mode = NVML_FEATURE_ENABLED;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
  REQUIRE(current && pending);
  ENTER(device);
  *current = *pending = NVML_DEVICE_MIG_DISABLE;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t device, nvmlComputeMode_t *mode) {
  REQUIRE(mode);
  ENTER(device);
  *mode = NVML_COMPUTEMODE_DEFAULT;
  return NVML_SUCCESS;
}

/* Events need the driver's interrupts: the kernel log is the record here. */
nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) {
  REQUIRE(set);
  return NVML_ERROR_NOT_SUPPORTED;
}
nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
  (void)set;
  return NVML_ERROR_NOT_SUPPORTED;
}
nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int milliseconds) {
  (void)set, (void)data, (void)milliseconds;
  return NVML_ERROR_NOT_SUPPORTED;
}
nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set) {
  (void)types, (void)set;
  ENTER(device);
  return NVML_ERROR_NOT_SUPPORTED;
}
nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types) {
  REQUIRE(types);
  ENTER(device);
  *types = nvmlEventTypeNone;
  return NVML_SUCCESS;
}
