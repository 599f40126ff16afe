/* GPU memory: allocation and copies. Every byte moved is added to the GPU's load and goes through the memory model. */
#include "cuda_context.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ALIGNMENT = 512 };

static CUdeviceptr base(void) { return (CUdeviceptr)(uintptr_t)cuda_current->model.words; }

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
  CUresult result = cuda_enter();
  if (result != CUDA_SUCCESS)
    return result;
  pthread_mutex_lock(&cuda_lock);
  *total = cuda_current->total;
  *free_bytes = cuda_current->size;
  for (int i = 0; i < cuda_current->block_count; i++)
    *free_bytes -= cuda_current->blocks[i].size;
  pthread_mutex_unlock(&cuda_lock);
  return CUDA_SUCCESS;
}

/* First fit between the blocks in use. */
CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes) {
  CUresult result = cuda_enter();
  if (result != CUDA_SUCCESS)
    return result;
  if (!bytes || !pointer)
    return CUDA_ERROR_INVALID_VALUE;
  if (bytes > cuda_current->size)
    return CUDA_ERROR_OUT_OF_MEMORY;
  size_t size = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT, at = 0;
  pthread_mutex_lock(&cuda_lock);
  int place = 0;
  while (place < cuda_current->block_count && cuda_current->blocks[place].at - at < size) {
    at = cuda_current->blocks[place].at + cuda_current->blocks[place].size;
    place++;
  }
  bool fits = at + size <= cuda_current->size && cuda_current->block_count < CUDA_MAX_BLOCKS;
  if (fits) {
    struct block *block = &cuda_current->blocks[place];
    memmove(block + 1, block, (size_t)(cuda_current->block_count++ - place) * sizeof *block);
    *block = (struct block){at, size};
    *pointer = base() + at;
  }
  pthread_mutex_unlock(&cuda_lock);
  return fits ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemFree_v2(CUdeviceptr pointer) {
  CUresult result = cuda_enter();
  if (result != CUDA_SUCCESS)
    return result;
  if (!pointer)
    return CUDA_SUCCESS;
  cuda_wait_for_kernels(cuda_current);
  size_t at = (size_t)(pointer - base());
  result = CUDA_ERROR_INVALID_VALUE;
  pthread_mutex_lock(&cuda_lock);
  for (int i = 0; i < cuda_current->block_count; i++)
    if (cuda_current->blocks[i].at == at) {
      memmove(&cuda_current->blocks[i], &cuda_current->blocks[i + 1],
              (size_t)(--cuda_current->block_count - i) * sizeof cuda_current->blocks[i]);
      result = CUDA_SUCCESS;
      break;
    }
  pthread_mutex_unlock(&cuda_lock);
  return result;
}

CUresult cuMemHostAlloc(void **pointer, size_t bytes, unsigned int flags) {
  (void)flags;
  CUresult result = cuda_enter();
  if (result != CUDA_SUCCESS)
    return result;
  *pointer = calloc(1, bytes);
  return *pointer ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemAllocHost_v2(void **pointer, size_t bytes) { return cuMemHostAlloc(pointer, bytes, 0); }

CUresult cuMemFreeHost(void *pointer) {
  free(pointer);
  return CUDA_SUCCESS;
}

/* Where in the memory of the current GPU a range lies; false unless one block holds all of it. */
static bool find_range(CUdeviceptr pointer, size_t bytes, size_t *at) {
  bool inside = false;
  pthread_mutex_lock(&cuda_lock);
  *at = (size_t)(pointer - base());
  for (int i = 0; i < cuda_current->block_count && !inside; i++) {
    const struct block *block = &cuda_current->blocks[i];
    inside = *at >= block->at && *at - block->at <= block->size && bytes <= block->size - (*at - block->at);
  }
  pthread_mutex_unlock(&cuda_lock);
  return inside;
}

/* An access of the current GPU's memory: checked, with `start` set and the faults read. */
static CUresult begin(CUdeviceptr pointer, size_t bytes, size_t *at, struct timespec *start) {
  CUresult result = cuda_enter();
  if (result != CUDA_SUCCESS)
    return result;
  cuda_wait_for_kernels(cuda_current);
  if (!find_range(pointer, bytes, at))
    return CUDA_ERROR_INVALID_VALUE;
  if (cuda_work_fails())
    return cuda_current->failed;
  clock_gettime(CLOCK_MONOTONIC, start);
  memory_refresh(&cuda_current->model, cuda_current->gpu);
  return CUDA_SUCCESS;
}

/* How much longer a copy to or from the host takes over the GPU's PCIe link than over a whole one. */
static double link_slowness(void) {
  uint64_t lanes, loaded;
  bool narrow = hw_gpu_number(cuda_current->gpu, "pcie_width", &lanes) &&
                hw_gpu_number(cuda_current->gpu, "pcie_width_loaded", &loaded) && loaded && loaded < lanes;
  return narrow ? (double)lanes / (double)loaded : 1;
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes) {
  struct timespec start;
  size_t at;
  CUresult result = begin(to, bytes, &at, &start);
  if (result != CUDA_SUCCESS)
    return result;
  memory_write(&cuda_current->model, at, from, bytes);
  return cuda_end_work(bytes, &start, link_slowness());
}

CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes) {
  struct timespec start;
  size_t at;
  CUresult result = begin(from, bytes, &at, &start);
  if (result != CUDA_SUCCESS)
    return result;
  memory_read(&cuda_current->model, at, to, bytes);
  return cuda_end_work(bytes, &start, link_slowness());
}

CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  struct timespec start;
  size_t source, target;
  CUresult result = begin(from, bytes, &source, &start);
  if (result == CUDA_SUCCESS)
    result = begin(to, bytes, &target, &start);
  if (result != CUDA_SUCCESS)
    return result;
  void *between = malloc(bytes ? bytes : 1);
  if (!between)
    return CUDA_ERROR_OUT_OF_MEMORY;
  memory_read(&cuda_current->model, source, between, bytes);
  memory_write(&cuda_current->model, target, between, bytes);
  free(between);
  return cuda_end_work(2 * bytes, &start, 1); /* read and written */
}

/* Fills with a value of 1 or 4 bytes, a piece at a time. */
static CUresult fill(CUdeviceptr to, const void *value, size_t width, size_t count) {
  struct timespec start;
  size_t at, done = 0;
  char piece[4096];
  if (count > SIZE_MAX / width || to % width)
    return CUDA_ERROR_INVALID_VALUE;
  CUresult result = begin(to, count * width, &at, &start);
  if (result != CUDA_SUCCESS)
    return result;
  for (size_t i = 0; i < sizeof piece; i += width)
    memcpy(piece + i, value, width);
  while (done < count * width) {
    size_t bytes = count * width - done < sizeof piece ? count * width - done : sizeof piece;
    memory_write(&cuda_current->model, at + done, piece, bytes);
    done += bytes;
  }
  return cuda_end_work(count * width, &start, 1);
}

CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count) { return fill(to, &value, 1, count); }
CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned int value, size_t count) { return fill(to, &value, 4, count); }
