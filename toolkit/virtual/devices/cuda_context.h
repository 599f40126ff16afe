/* What the parts of the CUDA stand-in share: results, the context of a GPU, and the steps of every call. */
#ifndef RACKPROOF_CUDA_CONTEXT_H
#define RACKPROOF_CUDA_CONTEXT_H

#include "compute_faults.h"
#include "hardware.h"
#include "memory_model.h"

#include <pthread.h>
#include <time.h>

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct context *CUcontext;
typedef struct stream *CUstream;
typedef struct event *CUevent;
typedef struct module *CUmodule;
typedef const struct kernel *CUfunction;

/* Names and numbers as in cuda.h (CUDA 13 driver API). */
#define RESULTS(R)                                                                                                     \
  R(SUCCESS, 0, "no error")                                                                                            \
  R(ERROR_INVALID_VALUE, 1, "invalid argument")                                                                        \
  R(ERROR_OUT_OF_MEMORY, 2, "out of memory")                                                                           \
  R(ERROR_NOT_INITIALIZED, 3, "initialization error")                                                                  \
  R(ERROR_DEVICE_UNAVAILABLE, 46, "CUDA-capable device(s) is/are busy or unavailable")                                 \
  R(ERROR_NO_DEVICE, 100, "no CUDA-capable device is detected")                                                        \
  R(ERROR_INVALID_DEVICE, 101, "invalid device ordinal")                                                               \
  R(ERROR_INVALID_IMAGE, 200, "device kernel image is invalid")                                                        \
  R(ERROR_INVALID_CONTEXT, 201, "invalid device context")                                                              \
  R(ERROR_ECC_UNCORRECTABLE, 214, "uncorrectable ECC error encountered")                                               \
  R(ERROR_NVLINK_UNCORRECTABLE, 220, "uncorrectable NVLink error detected during the execution")                       \
  R(ERROR_OPERATING_SYSTEM, 304, "OS call failed or operation not supported on this OS")                               \
  R(ERROR_INVALID_HANDLE, 400, "invalid resource handle")                                                              \
  R(ERROR_NOT_FOUND, 500, "named symbol not found")                                                                    \
  R(ERROR_NOT_READY, 600, "device not ready")                                                                          \
  R(ERROR_ILLEGAL_ADDRESS, 700, "an illegal memory access was encountered")                                            \
  R(ERROR_LAUNCH_TIMEOUT, 702, "the launch timed out and was terminated")                                              \
  R(ERROR_LAUNCH_FAILED, 719, "unspecified launch failure")                                                            \
  R(ERROR_NOT_SUPPORTED, 801, "operation not supported")                                                               \
  R(ERROR_SYSTEM_NOT_READY, 802, "system not yet initialized")                                                         \
  R(ERROR_SYSTEM_DRIVER_MISMATCH, 803, "system has unsupported display driver / cuda driver combination")              \
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
  int use;     /* descriptor of hw_use */
  size_t size; /* bytes a program may have: the GPU's memory less what the driver keeps */
  size_t total;
  struct block blocks[CUDA_MAX_BLOCKS]; /* sorted by address */
  int block_count;
  struct memory_model model; /* its words are the memory: NULL until first used */
  struct compute_faults compute;
  CUresult failed; /* what every call answers from now on */
  bool hangs;      /* a kernel runs that will never end */
};

/* The calling thread's context, and the lock over every context's blocks. */
extern __thread struct context *cuda_current;
extern pthread_mutex_t cuda_lock;

/* The GPU behind a device's number; its memory for programs, and all of it. */
CUresult cuda_gpu_of(CUdevice device, int *gpu);
CUresult cuda_memory_sizes(int gpu, size_t *usable, size_t *total);

/* First step of a call. INVALID_CONTEXT without a current one; the context's own error once it has one; UNKNOWN once
   its GPU has fallen off the bus. */
CUresult cuda_enter(void);

/* True when the current context's next piece of work meets a fault that ends it; the context then has its error. */
bool cuda_work_fails(void);

/* Does not return while a kernel runs that will never end: the caller waits for it, and sleeps until it is killed. */
void cuda_wait_for_kernels(const struct context *context);

/* Last step of a piece of work: counts its bytes and makes a slow GPU take its time (`slower`: how much longer a copy
   takes over a link that is too narrow, else 1). Work that reached a limit is the last that worked. Bytes that cannot
   be counted are an error: evidence would be missing. */
CUresult cuda_end_work(uint64_t bytes, const struct timespec *since, double slower);

#endif
