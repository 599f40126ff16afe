/* What the parts of the CUDA stand-in share: results, the context of a GPU, and the first step of every call. */
#ifndef RACKPROOF_CUDA_CONTEXT_H
#define RACKPROOF_CUDA_CONTEXT_H

#include "hardware.h"

#include <pthread.h>

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct context *CUcontext;
typedef struct stream *CUstream;
typedef struct event *CUevent;

/* Names and numbers as in cuda.h (CUDA 13 driver API). */
#define RESULTS(R)                                                                                                     \
  R(SUCCESS, 0, "no error")                                                                                            \
  R(ERROR_INVALID_VALUE, 1, "invalid argument")                                                                        \
  R(ERROR_OUT_OF_MEMORY, 2, "out of memory")                                                                           \
  R(ERROR_NOT_INITIALIZED, 3, "initialization error")                                                                  \
  R(ERROR_DEVICE_UNAVAILABLE, 46, "CUDA-capable device(s) is/are busy or unavailable")                                 \
  R(ERROR_NO_DEVICE, 100, "no CUDA-capable device is detected")                                                        \
  R(ERROR_INVALID_DEVICE, 101, "invalid device ordinal")                                                               \
  R(ERROR_INVALID_CONTEXT, 201, "invalid device context")                                                              \
  R(ERROR_OPERATING_SYSTEM, 304, "OS call failed or operation not supported on this OS")                               \
  R(ERROR_INVALID_HANDLE, 400, "invalid resource handle")                                                              \
  R(ERROR_NOT_READY, 600, "device not ready")                                                                          \
  R(ERROR_NOT_SUPPORTED, 801, "operation not supported")                                                               \
  R(ERROR_SYSTEM_NOT_READY, 802, "system not yet initialized")                                                         \
  R(ERROR_UNKNOWN, 999, "unknown error")

#define R(name, number, text) CUDA_##name = number,
enum { RESULTS(R) };
#undef R

enum { CUDA_MAX_BLOCKS = 256 };

struct block {
  size_t at, size;
};

struct context {
  int gpu;
  int retained;
  char *memory; /* NULL until first used */
  size_t size;  /* bytes a program may have: the GPU's memory less what the driver keeps */
  size_t total;
  struct block blocks[CUDA_MAX_BLOCKS]; /* sorted by address */
  int block_count;
};

/* The calling thread's context, and the lock over every context's blocks. */
extern __thread struct context *cuda_current;
extern pthread_mutex_t cuda_lock;

/* INVALID_CONTEXT without a current one; UNKNOWN once its GPU has fallen off the bus. */
CUresult cuda_enter(void);

#endif
