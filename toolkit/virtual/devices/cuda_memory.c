/* GPU memory: allocation and copies. Every byte moved is added to the GPU's load, and the faults of the state act where
   they would on hardware: a stuck bit in every byte written or read, a lost GPU in every call after its limit, a slow
   GPU in the time a copy takes. */
#include "cuda_context.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ALIGNMENT = 512 };

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
    *pointer = (CUdeviceptr)(uintptr_t)(cuda_current->memory + at);
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
  size_t at = (size_t)(pointer - (CUdeviceptr)(uintptr_t)cuda_current->memory);
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
  *at = (size_t)(pointer - (CUdeviceptr)(uintptr_t)cuda_current->memory);
  for (int i = 0; i < cuda_current->block_count && !inside; i++) {
    const struct block *block = &cuda_current->blocks[i];
    inside = *at >= block->at && *at - block->at <= block->size && bytes <= block->size - (*at - block->at);
  }
  pthread_mutex_unlock(&cuda_lock);
  return inside;
}

/* The stuck bit reads as 1 whatever was written: it is set again around every access to its byte. */
static void stick(size_t at, size_t bytes) {
  uint64_t byte, bit;
  if (hw_gpu_number(cuda_current->gpu, "stuck_byte", &byte) && hw_gpu_number(cuda_current->gpu, "stuck_bit", &bit) &&
      byte >= at && byte - at < bytes)
    cuda_current->memory[byte] |= (char)(1 << (bit & 7));
}

/* Counts the bytes and makes a slow GPU take its time. A copy that reached the limit is the last that worked. Bytes
   that cannot be counted are an error: evidence would be missing. */
static CUresult moved(uint64_t bytes, const struct timespec *since) {
  double fraction = hw_clock_fraction(cuda_current->gpu);
  if (!hw_add_moved(cuda_current->gpu, bytes))
    return CUDA_ERROR_OPERATING_SYSTEM;
  if (fraction >= 1)
    return CUDA_SUCCESS;
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  double took = (double)(now.tv_sec - since->tv_sec) + (double)(now.tv_nsec - since->tv_nsec) / 1e9;
  double more = took * (1 / fraction - 1);
  struct timespec wait = {(time_t)more, (long)((more - (double)(time_t)more) * 1e9)};
  nanosleep(&wait, NULL);
  return CUDA_SUCCESS;
}

/* An access of the current GPU's memory: checked, and with `start` set. */
static CUresult begin(CUdeviceptr pointer, size_t bytes, size_t *at, struct timespec *start) {
  CUresult result = cuda_enter();
  if (result != CUDA_SUCCESS)
    return result;
  clock_gettime(CLOCK_MONOTONIC, start);
  return find_range(pointer, bytes, at) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes) {
  struct timespec start;
  size_t at;
  CUresult result = begin(to, bytes, &at, &start);
  if (result != CUDA_SUCCESS)
    return result;
  memcpy(cuda_current->memory + at, from, bytes);
  stick(at, bytes);
  return moved(bytes, &start);
}

CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes) {
  struct timespec start;
  size_t at;
  CUresult result = begin(from, bytes, &at, &start);
  if (result != CUDA_SUCCESS)
    return result;
  stick(at, bytes);
  memcpy(to, cuda_current->memory + at, bytes);
  return moved(bytes, &start);
}

CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  struct timespec start;
  size_t source, target;
  CUresult result = begin(from, bytes, &source, &start);
  if (result == CUDA_SUCCESS)
    result = begin(to, bytes, &target, &start);
  if (result != CUDA_SUCCESS)
    return result;
  stick(source, bytes);
  memmove(cuda_current->memory + target, cuda_current->memory + source, bytes);
  stick(target, bytes);
  return moved(2 * bytes, &start); /* read and written */
}

CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count) {
  struct timespec start;
  size_t at;
  CUresult result = begin(to, count, &at, &start);
  if (result != CUDA_SUCCESS)
    return result;
  memset(cuda_current->memory + at, value, count);
  stick(at, count);
  return moved(count, &start);
}

CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned int value, size_t count) {
  struct timespec start;
  size_t at;
  if (count > SIZE_MAX / 4 || to % 4)
    return CUDA_ERROR_INVALID_VALUE;
  CUresult result = begin(to, count * 4, &at, &start);
  if (result != CUDA_SUCCESS)
    return result;
  uint32_t *words = (uint32_t *)(void *)(cuda_current->memory + at);
  for (size_t i = 0; i < count; i++)
    words[i] = value;
  stick(at, count * 4);
  return moved(count * 4, &start);
}
