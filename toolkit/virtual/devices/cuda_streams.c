/* Streams and events. Work is done when a call returns, so streams order nothing and an event is the time it was
   recorded. Behind a kernel that never ends, in whichever stream, nothing is ever done. */
#include "cuda_context.h"

#include <stdlib.h>
#include <time.h>

struct stream {
  struct context *context;
};

struct event {
  struct context *context;
  struct timespec at;
  bool recorded, reached;
};

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes);
CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes);
CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes);
CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned int value, size_t count);
CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count);

/* True when work can only be taken in, to wait for a kernel that never ends. */
static bool queued(void) { return cuda_enter() == CUDA_SUCCESS && cuda_current->hangs; }

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
  (void)stream;
  return queued() ? CUDA_SUCCESS : cuMemcpyHtoD_v2(to, from, bytes);
}

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
  (void)stream;
  return queued() ? CUDA_SUCCESS : cuMemcpyDtoH_v2(to, from, bytes);
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  (void)stream;
  return queued() ? CUDA_SUCCESS : cuMemcpyDtoD_v2(to, from, bytes);
}

CUresult cuMemsetD32Async(CUdeviceptr to, unsigned int value, size_t count, CUstream stream) {
  (void)stream;
  return queued() ? CUDA_SUCCESS : cuMemsetD32_v2(to, value, count);
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
  (void)stream;
  return queued() ? CUDA_SUCCESS : cuMemsetD8_v2(to, value, count);
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

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned int flags, int priority) {
  (void)priority;
  return cuStreamCreate(stream, flags);
}

/* What a stream has come to: its context's error, NOT_READY behind a kernel that never ends, else SUCCESS. */
static CUresult progress(const struct context *context) {
  if (!context)
    return CUDA_ERROR_INVALID_CONTEXT;
  if (context->failed != CUDA_SUCCESS)
    return context->failed;
  if (hw_lost(context->gpu))
    return CUDA_ERROR_UNKNOWN;
  return context->hangs ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

CUresult cuStreamQuery(CUstream stream) { return progress(stream ? stream->context : cuda_current); }

CUresult cuStreamSynchronize(CUstream stream) {
  CUresult result = cuStreamQuery(stream);
  if (result == CUDA_ERROR_NOT_READY)
    cuda_wait_for_kernels(stream ? stream->context : cuda_current);
  return result;
}

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
  if (!*event)
    return CUDA_ERROR_OUT_OF_MEMORY;
  (*event)->context = cuda_current;
  return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
  (void)stream;
  if (!event)
    return CUDA_ERROR_INVALID_HANDLE;
  CUresult result = cuda_enter();
  if (result != CUDA_SUCCESS)
    return result;
  event->recorded = clock_gettime(CLOCK_MONOTONIC, &event->at) == 0;
  event->reached = !cuda_current->hangs;
  return CUDA_SUCCESS;
}

/* An event that was never recorded, or that was reached, is ready whatever hangs now. */
CUresult cuEventQuery(CUevent event) {
  if (!event)
    return CUDA_ERROR_INVALID_HANDLE;
  CUresult result = progress(event->context);
  return result == CUDA_ERROR_NOT_READY && (event->reached || !event->recorded) ? CUDA_SUCCESS : result;
}

CUresult cuEventSynchronize(CUevent event) {
  CUresult result = cuEventQuery(event);
  if (result == CUDA_ERROR_NOT_READY)
    cuda_wait_for_kernels(event->context);
  return result;
}

CUresult cuEventElapsedTime(float *milliseconds, CUevent from, CUevent to) {
  if (!from || !to || !from->recorded || !to->recorded)
    return CUDA_ERROR_INVALID_HANDLE;
  if (!from->reached || !to->reached)
    return CUDA_ERROR_NOT_READY;
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
