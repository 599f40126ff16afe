/* burnin/kernels/device.h for a processor: the same primitives over a GPU's memory model. A block has one thread; the
   blocks of a launch run one after another, each on the SM of its number; what a kernel loads and stores is counted. */
#ifndef RACKPROOF_HOST_KERNELS_H
#define RACKPROOF_HOST_KERNELS_H

#define HOST_KERNELS 1
#include "device.h"

#include "kernel_thread.h"

#include <time.h>

/* device_libraries.py finds a source's kernels by these words. */
#define KERNEL extern "C" __attribute__((noinline)) void
#define DEVICE inline __attribute__((always_inline)) /* of a function or a method */
#define __launch_bounds__(...)
enum { THREADS = 1 };

#define blockIdx kernel_thread.block
#define gridDim kernel_thread.grid
#define threadIdx kernel_thread.thread
#define blockDim kernel_thread.threads

DEVICE Vector load(const Vector *at) {
  kernel_thread.moved += sizeof *at;
  if (__builtin_expect(kernel_thread.faulty != nullptr, 0)) {
    Vector value;
    kernel_load(at, &value);
    return value;
  }
  return *at;
}

DEVICE Vector load_again(const Vector *at) { return load(at); }

DEVICE void store(Vector *at, Vector value) {
  kernel_thread.moved += sizeof *at;
  if (__builtin_expect(kernel_thread.faulty != nullptr, 0))
    kernel_store(at, &value);
  else
    *at = value;
}

DEVICE u64 add(u64 *counter, u64 more) { return __atomic_fetch_add(counter, more, __ATOMIC_RELAXED); }

DEVICE void sync_block() {}

DEVICE u32 sm_id() { return kernel_thread.sm; }

DEVICE u64 nanoseconds() {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (u64)now.tv_sec * 1000000000u + (u64)now.tv_nsec;
}

/* What the arithmetic units of the running SM make of a result that is right: the faults of compute_faults.h. A
   multiply and add of the host passes each of its results through here. */
DEVICE float faulty_result(float value) {
  return __builtin_expect(kernel_thread.sm_faulty, 0) ? compute_faulty_float(kernel_thread.compute, value) : value;
}

DEVICE double faulty_result(double value) {
  return __builtin_expect(kernel_thread.sm_faulty, 0) ? compute_faulty_double(kernel_thread.compute, value) : value;
}

DEVICE int faulty_result(int value) {
  return __builtin_expect(kernel_thread.sm_faulty, 0) ? compute_faulty_int(kernel_thread.compute, value) : value;
}

#endif
