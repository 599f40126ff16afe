/* Contexts. A GPU's memory is a small piece of the host's, one for each process; a device pointer is a host address in
   it. An error of a context is sticky: it ends with the context. */
#include "cuda_context.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

__thread struct context *cuda_current;
pthread_mutex_t cuda_lock = PTHREAD_MUTEX_INITIALIZER;

static struct context contexts[HW_MAX_GPUS];

static CUresult open_memory(struct context *mine) {
  CUresult result = cuda_memory_sizes(mine->gpu, &mine->size, &mine->total);
  if (result != CUDA_SUCCESS || mine->model.words)
    return result;
  void *memory = mmap(NULL, mine->total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    return CUDA_ERROR_OUT_OF_MEMORY;
  mine->use = hw_use(mine->gpu);
  mine->model = (struct memory_model){.words = memory, .vectors = mine->total / MEMORY_VECTOR};
  return CUDA_SUCCESS;
}

/* A GPU that is already gone cannot be opened; one that goes while in use answers UNKNOWN to everything. */
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  int gpu;
  uint64_t error;
  CUresult result = cuda_gpu_of(device, &gpu);
  if (result != CUDA_SUCCESS)
    return result;
  if (hw_gpu_number(gpu, "cuda_context_error", &error) && error)
    return (CUresult)error;
  if (hw_lost(gpu))
    return CUDA_ERROR_DEVICE_UNAVAILABLE;
  pthread_mutex_lock(&cuda_lock);
  struct context *mine = &contexts[gpu];
  mine->gpu = gpu;
  result = open_memory(mine);
  if (result == CUDA_SUCCESS) {
    mine->retained++;
    *context = mine;
  }
  pthread_mutex_unlock(&cuda_lock);
  return result;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  int gpu;
  CUresult result = cuda_gpu_of(device, &gpu);
  if (result != CUDA_SUCCESS)
    return result;
  pthread_mutex_lock(&cuda_lock);
  struct context *mine = &contexts[gpu];
  bool last = mine->retained == 1, used = mine->retained > 0;
  pthread_mutex_unlock(&cuda_lock);
  if (last)
    cuda_wait_for_kernels(mine);
  pthread_mutex_lock(&cuda_lock);
  if (used && --mine->retained == 0) { /* the last one out: memory goes back */
    munmap(mine->model.words, mine->total);
    if (mine->use >= 0)
      close(mine->use);
    memset(mine, 0, sizeof *mine);
  }
  pthread_mutex_unlock(&cuda_lock);
  return used ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device) { return cuDevicePrimaryCtxRelease_v2(device); }

CUresult cuCtxSetCurrent(CUcontext context) {
  if (context && !context->retained)
    return CUDA_ERROR_INVALID_CONTEXT;
  cuda_current = context;
  return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *context) {
  *context = cuda_current;
  return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize(void) {
  CUresult result = cuda_enter();
  if (result == CUDA_SUCCESS)
    cuda_wait_for_kernels(cuda_current);
  return result;
}

CUresult cuda_enter(void) {
  if (!cuda_current || !cuda_current->retained)
    return CUDA_ERROR_INVALID_CONTEXT;
  if (cuda_current->failed != CUDA_SUCCESS)
    return cuda_current->failed;
  return hw_lost(cuda_current->gpu) ? CUDA_ERROR_UNKNOWN : CUDA_SUCCESS;
}

bool cuda_work_fails(void) {
  hw_remap_row(cuda_current->gpu);
  if (!hw_double_bit(cuda_current->gpu))
    return false;
  cuda_current->failed = CUDA_ERROR_ECC_UNCORRECTABLE;
  return true;
}

void cuda_wait_for_kernels(const struct context *context) {
  while (context->hangs)
    pause();
}

CUresult cuda_end_work(uint64_t bytes, const struct timespec *since, double slower) {
  slower /= hw_clock_fraction(cuda_current->gpu);
  if (!hw_add_moved(cuda_current->gpu, bytes))
    return CUDA_ERROR_OPERATING_SYSTEM;
  if (slower <= 1)
    return CUDA_SUCCESS;
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  double took = (double)(now.tv_sec - since->tv_sec) + (double)(now.tv_nsec - since->tv_nsec) / 1e9;
  double more = took * (slower - 1);
  struct timespec wait = {(time_t)more, (long)((more - (double)(time_t)more) * 1e9)};
  nanosleep(&wait, NULL);
  return CUDA_SUCCESS;
}
