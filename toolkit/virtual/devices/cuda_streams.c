/* Streams and events. Work is done when a call returns, so streams order nothing and an event is the time it was
   recorded. */
#include "cuda_context.h"

#include <stdlib.h>
#include <time.h>

struct stream {
  struct context *context;
};

struct event {
  struct timespec at;
  bool recorded;
};

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes);
CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes);
CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes);
CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned int value, size_t count);

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
  (void)stream;
  return cuMemcpyHtoD_v2(to, from, bytes);
}

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
  (void)stream;
  return cuMemcpyDtoH_v2(to, from, bytes);
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  (void)stream;
  return cuMemcpyDtoD_v2(to, from, bytes);
}

CUresult cuMemsetD32Async(CUdeviceptr to, unsigned int value, size_t count, CUstream stream) {
  (void)stream;
  return cuMemsetD32_v2(to, value, count);
}

CUresult cuStreamCreate(CUstream *stream, unsigned int flags) {
  (void)flags;
  CUresult result = cuda_enter();
  if (result != CUDA_SUCCESS)
    return result;
  *stream = calloc(1, sizeof **stream);
  if (!*stream)
    return CUDA_ERROR_OUT_OF_MEMORY;
  (*stream)->context = cuda_current;
  return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream) {
  struct context *context = stream ? stream->context : cuda_current;
  return context && hw_lost(context->gpu) ? CUDA_ERROR_UNKNOWN : CUDA_SUCCESS;
}

CUresult cuStreamQuery(CUstream stream) { return cuStreamSynchronize(stream); }

CUresult cuStreamDestroy_v2(CUstream stream) {
  free(stream);
  return stream ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuEventCreate(CUevent *event, unsigned int flags) {
  (void)flags;
  CUresult result = cuda_enter();
  if (result != CUDA_SUCCESS)
    return result;
  *event = calloc(1, sizeof **event);
  return *event ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
  (void)stream;
  if (!event)
    return CUDA_ERROR_INVALID_HANDLE;
  CUresult result = cuda_enter();
  if (result == CUDA_SUCCESS)
    event->recorded = clock_gettime(CLOCK_MONOTONIC, &event->at) == 0;
  return result;
}

CUresult cuEventQuery(CUevent event) { return event ? cuda_enter() : CUDA_ERROR_INVALID_HANDLE; }
CUresult cuEventSynchronize(CUevent event) { return cuEventQuery(event); }

CUresult cuEventElapsedTime(float *milliseconds, CUevent from, CUevent to) {
  if (!from || !to || !from->recorded || !to->recorded)
    return CUDA_ERROR_INVALID_HANDLE;
  *milliseconds = (float)((double)(to->at.tv_sec - from->at.tv_sec) * 1e3 +
                          (double)(to->at.tv_nsec - from->at.tv_nsec) / 1e6);
  return CUDA_SUCCESS;
}

CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent from, CUevent to) {
  return cuEventElapsedTime(milliseconds, from, to);
}

CUresult cuEventDestroy_v2(CUevent event) {
  free(event);
  return event ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}
