/* What every kernel is written in: a few primitives, so that one source runs on a GPU and, for rehearsals and tests, on
   a processor. There a block has one thread, an SM is a number, and memory goes through a model that can be faulty; the
   primitives then come from the header that is included before this one (HOST_KERNELS is defined).

   No includes here: NVRTC and nvcc need none. A kernel may use what stands here and plain C++; it must be right for any
   grid and for THREADS threads a block, and it reads and writes tested memory by `load`, `load_again` and `store` alone. */
#ifndef BURNIN_DEVICE_H
#define BURNIN_DEVICE_H

typedef unsigned int u32;
typedef unsigned long long u64;

/* 16 bytes: what one thread moves at a time. */
struct alignas(16) Vector {
  u64 x, y;
};

#ifndef HOST_KERNELS

#define KERNEL extern "C" __global__ void
#define DEVICE __device__ __forceinline__
#define RARE __device__ __noinline__ /* for what hardly ever happens: it costs the usual way no registers */
enum { THREADS = 256 }; /* of a block, in every kernel that does not say otherwise */

/* Streaming: data that is touched once should not push other data out of L2. */
DEVICE Vector load(const Vector *at) {
  ulonglong2 value = __ldcs((const ulonglong2 *)at);
  return Vector{value.x, value.y};
}

/* Fetched anew, past L1; the answer may still come from L2. */
DEVICE Vector load_again(const Vector *at) {
  ulonglong2 value = __ldcv((const ulonglong2 *)at);
  return Vector{value.x, value.y};
}

DEVICE void store(Vector *at, Vector value) { __stcs((ulonglong2 *)at, make_ulonglong2(value.x, value.y)); }

DEVICE u64 add(u64 *counter, u64 more) { return atomicAdd(counter, more); }

DEVICE void sync_block() { __syncthreads(); }

/* The SM this thread runs on. PTX ISA, special registers: %smid may change, so ask once where the work is done. */
DEVICE u32 sm_id() {
  u32 id;
  asm volatile("mov.u32 %0, %%smid;" : "=r"(id));
  return id;
}

DEVICE u64 nanoseconds() {
  u64 now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

#else
#define RARE static __attribute__((noinline, unused))
#endif
#endif
