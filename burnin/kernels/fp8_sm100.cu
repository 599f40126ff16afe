/* FP8 on Blackwell's data center chips: tcgen05.mma, whose sums are in tensor memory (SASS: UTCQMMA). sm_100a and
   sm_103a. UNPROVEN: it compiles and has never run on such a chip.

   One thread starts the multiplication of the block's 128 x 128 tile. Operands are in shared memory, rows of 64 bytes
   with their vectors swizzled as the hardware's 64-byte mode has it, which is what SwizzleBytes does. PTX ISA 9.0,
   "TensorCore 5th generation family instructions". */
#ifdef HOST_KERNELS
#include "plain_tiles.h"
#else
#define RING_STAGES 2 /* three leave no room for `Tensor` in the 48 KiB that a kernel may have unasked */
#include "tensor_tiles.h"

#if defined(__CUDA_ARCH_FEAT_SM100_ALL) || defined(__CUDA_ARCH_FEAT_SM103_ALL)

/* "Shared memory descriptor": address, bytes from one group of 8 rows to the next, version 1, 64-byte swizzling (4). */
DEVICE u64 descriptor(const Vector *at) {
  return (u64)(shared_address(at) >> 4 & 0x3FFF) | 1ull << 16 | (u64)(8 * CHUNK_BYTES >> 4) << 32 | 1ull << 46 |
         4ull << 61;
}

/* "Instruction descriptor", kind::f8f6f4: sums are floats (1), operands E4M3 (0) with K contiguous, N / 8, M / 16. */
enum { INSTRUCTION = 1 << 4 | TILE / 8 << 17 | TILE / 16 << 24 };

/* A block's columns of tensor memory; what the multiplications are waited for by. */
struct Tensor {
  u64 barrier;
  u32 columns;
};

struct Fp8Tile {
  enum { SIZE = TILE, BYTES = 1 };
  typedef u32 Bits;
  Stage<TILE> *ring;
  Tensor *tensor; /* shared */
  u32 phase = 0;

  DEVICE void multiply(const Vector *a, const Vector *b, u32 vectors) {
    bool more = false;
    stream_chunks<SwizzleBytes>(ring, a, b, vectors, [&](Stage<TILE> &stage) {
      chunk(stage, more);
      more = true;
    });
    asm volatile("tcgen05.fence::after_thread_sync;" ::: "memory");
  }

  /* 64 bytes of every row, in two steps. They end here: the ring's next copy goes where this chunk lies. */
  DEVICE void chunk(Stage<TILE> &stage, bool more) {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    /* the sums of the tile before have been read by all */
    asm volatile("tcgen05.fence::before_thread_sync;" ::: "memory");
    sync_block();
    if (threadIdx.x == 0) {
      asm volatile("tcgen05.fence::after_thread_sync;" ::: "memory");
      u64 a = descriptor(stage.row[0]), b = descriptor(stage.row[TILE]);
      step(a, b, more);
      step(a + 2, b + 2, true); /* 32 bytes on, in units of 16 */
      asm volatile("tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%0];" ::"r"(
                       shared_address(&tensor->barrier))
                   : "memory");
    }
    await();
  }

  DEVICE void step(u64 a, u64 b, bool more) {
    asm volatile("{.reg .pred more;\n\t"
                 "setp.ne.u32 more, %4, 0;\n\t"
                 "tcgen05.mma.cta_group::1.kind::f8f6f4 [%0], %1, %2, %3, more;}" ::"r"(tensor->columns),
                 "l"(a), "l"(b), "r"(INSTRUCTION), "r"((u32)more)
                 : "memory");
  }

  DEVICE void await() {
    u32 done = 0;
    while (!done)
      asm volatile("{.reg .pred done;\n\t"
                   "mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n\t"
                   "selp.u32 %0, 1, 0, done;}"
                   : "=r"(done)
                   : "r"(shared_address(&tensor->barrier)), "r"(phase)
                   : "memory");
    phase ^= 1;
  }

  /* Warp w reads lanes 32 (w % 4) .., a lane is a row; the first four warps have the first half of the columns. */
  template <class F> DEVICE void each(F f) const {
    const u32 warp = threadIdx.x / 32, row = warp % 4 * 32 + threadIdx.x % 32, half = warp / 4 * (TILE / 2);
#pragma unroll
    for (u32 column = 0; column < TILE / 2; column += 8) {
      u32 v[8];
      asm volatile("tcgen05.ld.sync.aligned.32x32b.x8.b32 {%0, %1, %2, %3, %4, %5, %6, %7}, [%8];\n\t"
                   "tcgen05.wait::ld.sync.aligned;"
                   : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]), "=r"(v[4]), "=r"(v[5]), "=r"(v[6]), "=r"(v[7])
                   : "r"(tensor->columns + (warp % 4 * 32 << 16) + half + column)
                   : "memory");
#pragma unroll
      for (u32 e = 0; e < 8; e++)
        f(row, half + column + e, v[e]);
    }
  }

  DEVICE u64 block_sum(u64 value) { return sum_of_block((u64 *)ring, value); }
};

/* Tensor memory is taken and given back by one warp; 128 columns of 512 for each of two blocks. */
DEVICE void take(Tensor *tensor) {
  if (threadIdx.x < 32)
    asm volatile("tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%0], %1;\n\t"
                 "tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;" ::"r"(shared_address(&tensor->columns)),
                 "n"((int)TILE)
                 : "memory");
  if (threadIdx.x == 0)
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\n\t"
                 "fence.mbarrier_init.release.cluster;" ::"r"(shared_address(&tensor->barrier))
                 : "memory");
  asm volatile("tcgen05.fence::before_thread_sync;" ::: "memory");
  sync_block();
  asm volatile("tcgen05.fence::after_thread_sync;" ::: "memory");
}

DEVICE void give_back(Tensor *tensor) {
  sync_block();
  if (threadIdx.x < 32)
    asm volatile("tcgen05.dealloc.cta_group::1.sync.aligned.b32 %0, %1;" ::"r"(tensor->columns), "n"((int)TILE)
                 : "memory");
}

#define MULTIPLY_FP8
#endif
#endif

#if defined(HOST_KERNELS)
KERNEL gemm_fp8_tcgen05(PRODUCT_PARAMETERS) { MULTIPLY_BYTES(Fp8); }
#elif defined(MULTIPLY_FP8)
KERNEL BLOCKS_PER_SM(BLOCKS) gemm_fp8_tcgen05(PRODUCT_PARAMETERS) {
  __shared__ Stage<TILE> ring[STAGES];
  __shared__ Tensor tensor;
  Fp8Tile product;
  product.ring = ring;
  product.tensor = &tensor;
  take(&tensor);
  rotate(product, PRODUCT_ARGUMENTS);
  give_back(&tensor);
}
#endif
