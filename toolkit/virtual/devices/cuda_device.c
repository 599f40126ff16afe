/* libcuda.so.1 of a virtual node: errors and devices. Prototypes follow CUDA 13's cuda.h, which has no wheel without
   the toolkit: a test calls each one by ctypes. */
#include "cuda_context.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int visible[HW_MAX_GPUS], visible_count;
static bool initialised;

CUresult cuGetErrorName(CUresult result, const char **text) {
  switch (result) {
#define R(name, number, sentence)                                                                                      \
  case number:                                                                                                         \
    *text = "CUDA_" #name;                                                                                             \
    return CUDA_SUCCESS;
    RESULTS(R)
#undef R
  default: *text = NULL; return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult cuGetErrorString(CUresult result, const char **text) {
  switch (result) {
#define R(name, number, sentence)                                                                                      \
  case number:                                                                                                         \
    *text = sentence;                                                                                                  \
    return CUDA_SUCCESS;
    RESULTS(R)
#undef R
  default: *text = NULL; return CUDA_ERROR_INVALID_VALUE;
  }
}

/* One entry of CUDA_VISIBLE_DEVICES: an index or the beginning of a UUID. -1 where no GPU answers to it. */
static int named_gpu(const char *name) {
  char uuid[HW_TEXT], *end;
  if (!strncmp(name, "GPU-", 4)) {
    for (int gpu = 0; gpu < hw_gpu_count(); gpu++)
      if (hw_gpu_text(gpu, "uuid", uuid, sizeof uuid) && !strncmp(uuid, name, strlen(name)))
        return gpu;
    return -1;
  }
  long index = strtol(name, &end, 10);
  return end == name || *end || index < 0 || index >= hw_gpu_count() ? -1 : (int)index;
}

/* As the real driver: the list ends at the first entry that names no GPU. A GPU that is lost is still counted. */
static void find_visible(void) {
  const char *wanted = getenv("CUDA_VISIBLE_DEVICES");
  visible_count = 0;
  if (!wanted) {
    while (visible_count < hw_gpu_count())
      visible[visible_count] = visible_count, visible_count++;
    return;
  }
  char list[1024], *rest = list, *name;
  snprintf(list, sizeof list, "%s", wanted);
  while ((name = strsep(&rest, ",")) && visible_count < HW_MAX_GPUS) {
    int gpu = named_gpu(name + strspn(name, " "));
    if (gpu < 0)
      break;
    visible[visible_count++] = gpu;
  }
}

CUresult cuInit(unsigned int flags) {
  uint64_t error;
  if (flags)
    return CUDA_ERROR_INVALID_VALUE;
  if (!hw_present())
    return CUDA_ERROR_NO_DEVICE;
  if (hw_number("cuda_init_error", &error) && error)
    return (CUresult)error;
  if (!hw_fabric_ready())
    return CUDA_ERROR_SYSTEM_NOT_READY;
  pthread_mutex_lock(&cuda_lock);
  find_visible();
  initialised = true;
  pthread_mutex_unlock(&cuda_lock);
  return visible_count ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

CUresult cuDriverGetVersion(int *version) {
  uint64_t value;
  if (!version)
    return CUDA_ERROR_INVALID_VALUE;
  if (!hw_number("cuda", &value))
    return CUDA_ERROR_NO_DEVICE;
  *version = (int)value;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
  if (!initialised)
    return CUDA_ERROR_NOT_INITIALIZED;
  *count = visible_count;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  if (!initialised)
    return CUDA_ERROR_NOT_INITIALIZED;
  if (ordinal < 0 || ordinal >= visible_count)
    return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

CUresult cuda_gpu_of(CUdevice device, int *gpu) {
  if (!initialised)
    return CUDA_ERROR_NOT_INITIALIZED;
  if (device < 0 || device >= visible_count)
    return CUDA_ERROR_INVALID_DEVICE;
  *gpu = visible[device];
  return CUDA_SUCCESS;
}

static CUresult device_text(CUdevice device, const char *key, char *out, size_t size) {
  int gpu;
  CUresult result = cuda_gpu_of(device, &gpu);
  if (result != CUDA_SUCCESS)
    return result;
  return hw_gpu_text(gpu, key, out, size) ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuDeviceGetName(char *name, int size, CUdevice device) {
  return size > 0 ? device_text(device, "name", name, (size_t)size) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuDeviceGetUuid(unsigned char uuid[16], CUdevice device) {
  char text[HW_TEXT];
  CUresult result = device_text(device, "uuid", text, sizeof text);
  if (result != CUDA_SUCCESS)
    return result;
  int have = 0;
  for (const char *c = text + 4; have < 16 && c[0] && c[1]; c += *c == '-' ? 1 : 2) { /* past "GPU-" */
    unsigned int byte;
    if (*c != '-' && sscanf(c, "%2x", &byte) == 1)
      uuid[have++] = (unsigned char)byte;
  }
  return have == 16 ? CUDA_SUCCESS : CUDA_ERROR_UNKNOWN;
}

CUresult cuDeviceGetUuid_v2(unsigned char uuid[16], CUdevice device) { return cuDeviceGetUuid(uuid, device); }

CUresult cuDeviceGetPCIBusId(char *bus_id, int size, CUdevice device) {
  char text[HW_TEXT];
  CUresult result = device_text(device, "pci", text, sizeof text);
  if (result != CUDA_SUCCESS)
    return result;
  if (size < 13 || strlen(text) < 16)
    return CUDA_ERROR_INVALID_VALUE;
  snprintf(bus_id, (size_t)size, "%s", text + 4); /* DDDD:BB:DD.F */
  return CUDA_SUCCESS;
}

CUresult cuda_memory_sizes(int gpu, size_t *usable, size_t *total) {
  uint64_t bytes, reserved;
  if (!hw_gpu_number(gpu, "memory_bytes", &bytes) || !hw_gpu_number(gpu, "memory_reserved_bytes", &reserved))
    return CUDA_ERROR_UNKNOWN;
  *total = (size_t)bytes;
  *usable = (size_t)(bytes - (reserved < bytes ? reserved : bytes));
  return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
  int gpu;
  size_t usable;
  CUresult result = cuda_gpu_of(device, &gpu);
  return result == CUDA_SUCCESS ? cuda_memory_sizes(gpu, &usable, bytes) : result;
}

/* Attribute numbers of cuda.h (CUdevice_attribute) and the state key each is read from. */
static const struct {
  int attribute;
  const char *key;
  int multiplier;
} attributes[] = {
    {13, "sm_clock_mhz", 1000},     /* CLOCK_RATE, kHz */
    {16, "sm_count", 1},            /* MULTIPROCESSOR_COUNT */
    {36, "memory_clock_mhz", 1000}, /* MEMORY_CLOCK_RATE, kHz */
    {37, "memory_bus_bits", 1},     /* GLOBAL_MEMORY_BUS_WIDTH */
    {38, "l2_bytes", 1},            /* L2_CACHE_SIZE */
};

CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
  int gpu;
  uint64_t number;
  unsigned int bus;
  char pci[HW_TEXT];
  CUresult result = cuda_gpu_of(device, &gpu);
  if (result != CUDA_SUCCESS)
    return result;
  for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
    if (attributes[i].attribute == attribute && hw_gpu_number(gpu, attributes[i].key, &number)) {
      *value = (int)number * attributes[i].multiplier;
      return CUDA_SUCCESS;
    }
  switch (attribute) {
  case 32: /* ECC_ENABLED */ *value = 1; return CUDA_SUCCESS;
  case 33: /* PCI_BUS_ID */
    if (!hw_gpu_text(gpu, "pci", pci, sizeof pci) || sscanf(pci, "%*x:%x:", &bus) != 1)
      return CUDA_ERROR_UNKNOWN;
    *value = (int)bus;
    return CUDA_SUCCESS;
  case 34: /* PCI_DEVICE_ID */
  case 50: /* PCI_DOMAIN_ID */ *value = 0; return CUDA_SUCCESS;
  case 75: /* COMPUTE_CAPABILITY_MAJOR */
  case 76: /* COMPUTE_CAPABILITY_MINOR */
    if (!hw_gpu_number(gpu, "compute_capability", &number))
      return CUDA_ERROR_UNKNOWN;
    *value = (int)(attribute == 75 ? number / 10 : number % 10);
    return CUDA_SUCCESS;
  default: return CUDA_ERROR_INVALID_VALUE;
  }
}
