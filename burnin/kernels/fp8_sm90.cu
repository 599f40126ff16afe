/* FP8 on Hopper: wgmma, the one instruction there that uses the FP8 units (SASS: QGMMA). sm_90a only.
   UNPROVEN: it compiles and has never run on such a chip.

   Two warpgroups, each 64 x 128 of the block's 128 x 128 tile. Operands are in shared memory, rows of 64 bytes with
   their vectors swizzled as the hardware's 64-byte mode has it, which is what SwizzleBytes does. PTX ISA 9.0,
   "Asynchronous warpgroup level matrix instructions". */
#ifdef HOST_KERNELS
#include "plain_tiles.h"
#else
#include "tensor_tiles.h"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* "Matrix descriptor format": address, bytes from one group of 8 rows to the next, swizzling by 64 bytes (2). */
DEVICE u64 descriptor(const Vector *at) {
  return (u64)(shared_address(at) >> 4 & 0x3FFF) | 1ull << 16 | (u64)(8 * CHUNK_BYTES >> 4) << 32 | 2ull << 62;
}

struct Fp8Tile {
  enum { SIZE = TILE, BYTES = 1, SUMS = 64 };
  typedef u32 Bits;
  Stage<TILE> *ring;
  float sum[SUMS];

  DEVICE u32 group() const { return threadIdx.x / 128; }

  DEVICE void multiply(const Vector *a, const Vector *b, u32 vectors) {
#pragma unroll
    for (u32 i = 0; i < SUMS; i++)
      sum[i] = 0;
    stream_chunks<SwizzleBytes>(ring, a, b, vectors, [&](Stage<TILE> &stage) { chunk(stage); });
  }

  /* 64 bytes of every row, in two steps. They end here: the ring's next copy goes where this chunk lies. */
  DEVICE void chunk(Stage<TILE> &stage) {
    /* copies were made by the threads, wgmma reads by another proxy */
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    sync_block();
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    u64 a = descriptor(stage.row[group() * 64]), b = descriptor(stage.row[TILE]);
    step(a, b);
    step(a + 2, b + 2); /* 32 bytes on, in units of 16 */
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  }

#define S4(i) "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3])
#define S16(i) S4(i), S4(i + 4), S4(i + 8), S4(i + 12)
  DEVICE void step(u64 a, u64 b) {
    asm volatile("{wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "%64, %65, 1, 1, 1;}"
                 : S16(0), S16(16), S16(32), S16(48)
                 : "l"(a), "l"(b)
                 : "memory");
  }
#undef S16
#undef S4

  /* "Register fragments for wgmma .m64nNk32": as mma.sync's sums, warp w of the group with rows 16w. */
  template <class F> DEVICE void each(F f) const {
    const u32 row = group() * 64 + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
#pragma unroll
    for (u32 i = 0; i < SUMS; i++)
      f(row + i / 2 % 2 * 8, column + i / 4 * 8 + i % 2, bits_of(sum[i]));
  }

  DEVICE u64 block_sum(u64 value) { return sum_of_block((u64 *)ring, value); }
};

#define MULTIPLY_FP8 MULTIPLY(Fp8Tile)
#endif
#endif

#if defined(HOST_KERNELS)
KERNEL gemm_fp8_wgmma(PRODUCT_PARAMETERS) { MULTIPLY_BYTES(Fp8); }
#elif defined(MULTIPLY_FP8)
KERNEL BLOCKS_PER_SM(BLOCKS) gemm_fp8_wgmma(PRODUCT_PARAMETERS) { MULTIPLY_FP8; }
#endif
