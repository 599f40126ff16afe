/* One tile on the tensor cores: a block of 8 warps, operands in a ring of shared memory, sums in registers.

   Seen as bytes, every unit but FP64 has the same fragments: of a slab of 32 bytes of a row, a lane holds the bytes
   4t .. 4t+3 and 16+4t .. of rows g and g+8 (t = lane % 4, g = lane / 4), and of the sums the columns 2t, 2t+1 of
   rows g and g+8. One code for all of them; what differs is the instruction. */
#ifndef BURNIN_TENSOR_TILES_H
#define BURNIN_TENSOR_TILES_H
#include "tensor.h"
#include "tiles.h"

/* 3 x 16 KiB: the 48 KiB that a kernel may have unasked, and twice that fits an SM of every supported GPU. */
#ifndef RING_STAGES
#define RING_STAGES 3
#endif
enum { STAGES = RING_STAGES, ROW_VECTORS = CHUNK_BYTES / sizeof(Vector), WARPS_DOWN = 2, WARPS_ACROSS = 4 };

/* Aligned as the hardware's swizzling wants it. */
template <u32 SIZE> struct alignas(1024) Stage {
  Vector row[2 * SIZE][ROW_VECTORS]; /* of A, then of B */
};

/* Where the four vectors of a row lie is swizzled, so that neither 8 rows of one vector (ldmatrix) nor 4 rows of two
   (loads of doubles) meet in a bank. Rows 2i and 2i+1 share 128 bytes; those with the same half differ in bits 1, 2. */
struct SwizzleBytes {
  static DEVICE u32 of(u32 row) { return row >> 1 & 3; } /* the hardware's own, for rows of 64 bytes */
};
struct SwizzleDoubles {
  static DEVICE u32 of(u32 row) { return (row & 2) | (row >> 2 & 1); }
};

/* Start copying one chunk of every row of a tile's operands. */
template <class SWIZZLE, u32 SIZE>
DEVICE void fetch(Stage<SIZE> &stage, const Vector *a, const Vector *b, u32 vectors, u32 chunk) {
#pragma unroll
  for (u32 i = 0; i < 2 * SIZE * ROW_VECTORS / THREADS; i++) {
    u32 at = i * THREADS + threadIdx.x, row = at / ROW_VECTORS, vector = at % ROW_VECTORS;
    const Vector *from = row < SIZE ? a + row * vectors : b + (row - SIZE) * vectors;
    cp_async_16(&stage.row[row][vector ^ SWIZZLE::of(row)], from + chunk * ROW_VECTORS + vector);
  }
}

/* All chunks through the ring, in order; `consume(stage)` multiplies one. All threads are past it on return. */
template <class SWIZZLE, u32 SIZE, class CONSUME>
DEVICE void stream_chunks(Stage<SIZE> *ring, const Vector *a, const Vector *b, u32 vectors, CONSUME consume) {
  const u32 chunks = vectors / ROW_VECTORS;
  u32 filled = 0, used = 0; /* places in the ring */
  for (; filled < STAGES - 1; filled++) {
    if (filled < chunks)
      fetch<SWIZZLE>(ring[filled], a, b, vectors, filled);
    cp_async_commit();
  }
  for (u32 chunk = 0; chunk < chunks; chunk++) {
    cp_async_wait<STAGES - 2>();
    sync_block(); /* the chunk is here, and nobody reads the one before it any more: its place is free */
    if (chunk + STAGES - 1 < chunks)
      fetch<SWIZZLE>(ring[filled], a, b, vectors, chunk + STAGES - 1);
    cp_async_commit(); /* empty at the end, so that the count of groups stays right */
    consume(ring[used]);
    filled = filled + 1 == STAGES ? 0 : filled + 1;
    used = used + 1 == STAGES ? 0 : used + 1;
  }
  cp_async_wait<0>();
  sync_block();
}

/* The block's sum, to every thread. `scratch` is shared memory that nobody reads. */
DEVICE u64 sum_of_block(u64 *scratch, u64 value) {
  if (threadIdx.x == 0)
    *scratch = 0;
  sync_block();
  add(scratch, value);
  sync_block();
  value = *scratch;
  sync_block();
  return value;
}

/* A tile of a unit whose operands are handled as bytes. UNIT has BYTES, Sum and mma(). */
template <class UNIT> struct ByteTile {
  enum { SIZE = TILE, BYTES = UNIT::BYTES, DOWN = TILE / WARPS_DOWN / 16, ACROSS = TILE / WARPS_ACROSS / 8 };
  typedef u32 Bits;
  typedef SwizzleBytes Swizzle;
  Stage<TILE> *ring;
  typename UNIT::Sum sum[DOWN][ACROSS][4];

  DEVICE u32 first_row() const { return threadIdx.x / 32 % WARPS_DOWN * (TILE / WARPS_DOWN); }
  DEVICE u32 first_column() const { return threadIdx.x / 32 / WARPS_DOWN * (TILE / WARPS_ACROSS); }

  DEVICE void multiply(const Vector *a, const Vector *b, u32 vectors) {
#pragma unroll
    for (u32 i = 0; i < DOWN * ACROSS * 4; i++)
      sum[i / 4 / ACROSS][i / 4 % ACROSS][i % 4] = 0;
    stream_chunks<Swizzle>(ring, a, b, vectors, [&](Stage<TILE> &stage) {
      slab(stage, 0);
      slab(stage, 1);
    });
  }

  /* 32 bytes of every row: half a chunk. */
  DEVICE void slab(Stage<TILE> &stage, u32 half) {
    const u32 lane = threadIdx.x % 32;
    u32 a[DOWN][4], b[ACROSS / 2][4];
    /* matrices of a: rows 0-7 and 8-15 of the first vector, then of the second */
    u32 row = first_row() + lane % 16, vector = (2 * half + lane / 16) ^ Swizzle::of(row);
#pragma unroll
    for (u32 i = 0; i < DOWN; i++)
      ldmatrix_x4(a[i], &stage.row[row + i * 16][vector]);
    /* of b: the first and the second vector of columns 0-7, then of columns 8-15 */
    row = TILE + first_column() + lane % 8 + lane / 16 * 8, vector = (2 * half + lane / 8 % 2) ^ Swizzle::of(row);
#pragma unroll
    for (u32 j = 0; j < ACROSS / 2; j++)
      ldmatrix_x4(b[j], &stage.row[row + j * 16][vector]);
#pragma unroll
    for (u32 i = 0; i < DOWN; i++)
#pragma unroll
      for (u32 j = 0; j < ACROSS; j++)
        UNIT::mma(sum[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
  }

  template <class F> DEVICE void each(F f) const {
    const u32 row = first_row() + threadIdx.x % 32 / 4, column = first_column() + threadIdx.x % 4 * 2;
#pragma unroll
    for (u32 i = 0; i < DOWN * ACROSS * 4; i++) {
      const u32 down = i / 4 / ACROSS, across = i / 4 % ACROSS, e = i % 4;
      f(row + down * 16 + e / 2 * 8, column + across * 8 + e % 2, bits_of(sum[down][across][e]));
    }
  }

  DEVICE u64 block_sum(u64 value) { return sum_of_block((u64 *)ring, value); }
};

/* A tile of doubles. A lane holds one of each row of A and of B: element t of row g. */
struct DoubleTile {
  enum { SIZE = TILE_FP64, BYTES = 8, DOWN = TILE_FP64 / WARPS_DOWN / 8, ACROSS = TILE_FP64 / WARPS_ACROSS / 8 };
  typedef u64 Bits;
  typedef SwizzleDoubles Swizzle;
  Stage<TILE_FP64> *ring;
  double sum[DOWN][ACROSS][2];

  DEVICE u32 first_row() const { return threadIdx.x / 32 % WARPS_DOWN * (TILE_FP64 / WARPS_DOWN); }
  DEVICE u32 first_column() const { return threadIdx.x / 32 / WARPS_DOWN * (TILE_FP64 / WARPS_ACROSS); }

  DEVICE void multiply(const Vector *a, const Vector *b, u32 vectors) {
#pragma unroll
    for (u32 i = 0; i < DOWN * ACROSS * 2; i++)
      sum[i / 2 / ACROSS][i / 2 % ACROSS][i % 2] = 0;
    stream_chunks<Swizzle>(ring, a, b, vectors, [&](Stage<TILE_FP64> &stage) {
      slab(stage, 0);
      slab(stage, 1);
    });
  }

  DEVICE double at(const Stage<TILE_FP64> &stage, u32 row, u32 element) const {
    return ((const double *)&stage.row[row][element / 2 ^ Swizzle::of(row)])[element % 2];
  }

  DEVICE void slab(Stage<TILE_FP64> &stage, u32 half) {
    const u32 row = threadIdx.x % 32 / 4, element = 4 * half + threadIdx.x % 4;
    double a[DOWN], b[ACROSS];
#pragma unroll
    for (u32 i = 0; i < DOWN; i++)
      a[i] = at(stage, first_row() + i * 8 + row, element);
#pragma unroll
    for (u32 j = 0; j < ACROSS; j++)
      b[j] = at(stage, TILE_FP64 + first_column() + j * 8 + row, element);
#pragma unroll
    for (u32 i = 0; i < DOWN; i++)
#pragma unroll
      for (u32 j = 0; j < ACROSS; j++)
        mma_fp64(sum[i][j], a[i], b[j]);
  }

  template <class F> DEVICE void each(F f) const {
    const u32 row = first_row() + threadIdx.x % 32 / 4, column = first_column() + threadIdx.x % 4 * 2;
#pragma unroll
    for (u32 i = 0; i < DOWN * ACROSS * 2; i++) {
      const u32 down = i / 2 / ACROSS, across = i / 2 % ACROSS;
      f(row + down * 8, column + across * 8 + i % 2, bits_of(sum[down][across][i % 2]));
    }
  }

  DEVICE u64 block_sum(u64 value) { return sum_of_block((u64 *)ring, value); }
};

#define TENSOR_UNIT(name, bytes, type, instruction)                                                                    \
  struct name {                                                                                                        \
    enum { BYTES = bytes };                                                                                            \
    typedef type Sum;                                                                                                  \
    static DEVICE void mma(type(&c)[4], const u32 (&a)[4], u32 b0, u32 b1) { instruction(c, a, b0, b1); }              \
  };
TENSOR_UNIT(Tf32, 4, float, mma_tf32)
TENSOR_UNIT(Bf16, 2, float, mma_bf16)
TENSOR_UNIT(Fp16, 2, float, mma_fp16)
TENSOR_UNIT(Int8, 1, int, mma_int8)
#ifdef HAS_FP8_MMA
TENSOR_UNIT(Fp8, 1, float, mma_fp8)
#endif
#undef TENSOR_UNIT

/* A kernel's body. */
#define MULTIPLY(type)                                                                                                 \
  __shared__ Stage<type::SIZE> ring[STAGES];                                                                           \
  type product;                                                                                                        \
  product.ring = ring;                                                                                                 \
  rotate(product, PRODUCT_ARGUMENTS)
#define MULTIPLY_BYTES(unit) MULTIPLY(ByteTile<unit>)
#define MULTIPLY_DOUBLES MULTIPLY(DoubleTile)
#endif
