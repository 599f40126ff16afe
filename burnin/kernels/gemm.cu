/* Matrix products with one right answer, on the tensor cores of every SM; their operands; and their proof.

   Operands are small whole numbers, so that every partial sum is exact and a result has one right value, bit for bit;
   or any bits at all, where the same kernel must give the same bits on every SM, every time, on every GPU of a kind. */
#ifdef HOST_KERNELS
#include "plain_tiles.h"
#else
#include "tensor_tiles.h"
#endif

KERNEL BLOCKS_PER_SM(BLOCKS_FP64) gemm_fp64(PRODUCT_PARAMETERS) { MULTIPLY_DOUBLES; }
KERNEL BLOCKS_PER_SM(BLOCKS) gemm_tf32(PRODUCT_PARAMETERS) { MULTIPLY_BYTES(Tf32); }
KERNEL BLOCKS_PER_SM(BLOCKS) gemm_bf16(PRODUCT_PARAMETERS) { MULTIPLY_BYTES(Bf16); }
KERNEL BLOCKS_PER_SM(BLOCKS) gemm_fp16(PRODUCT_PARAMETERS) { MULTIPLY_BYTES(Fp16); }
KERNEL BLOCKS_PER_SM(BLOCKS) gemm_int8(PRODUCT_PARAMETERS) { MULTIPLY_BYTES(Int8); }
#ifdef HAS_FP8_MMA
KERNEL BLOCKS_PER_SM(BLOCKS) gemm_fp8_mma(PRODUCT_PARAMETERS) { MULTIPLY_BYTES(Fp8); }
#endif

DEVICE u32 tile_size(u32 unit) { return unit == FP64 ? TILE_FP64 : TILE; }

/* Tile size, blocks per SM, and bytes that a row is a multiple of. One block. */
KERNEL gemm_shape(u64 *shape, u32 unit) {
  if (threadIdx.x == 0) {
    shape[0] = tile_size(unit);
    shape[1] = unit == FP64 ? BLOCKS_FP64 : BLOCKS;
    shape[2] = CHUNK_BYTES;
  }
}

/* The operand matrix number 0 (A) or 1 (B): small whole numbers, or any bits where `any` is 1. */
KERNEL gemm_fill(Vector *operand, u32 matrix, u32 rows, u32 depth, u32 unit, u32 any, u64 seed) {
  const Format format = format_of(unit);
  const u32 elements = sizeof(Vector) / format.bytes, half = elements / 2, vectors = depth / elements;
  for (u64 i = blockIdx.x * THREADS + threadIdx.x; i < (u64)rows * vectors; i += gridDim.x * THREADS) {
    u32 row = (u32)(i / vectors), column = (u32)(i % vectors) * elements;
    Vector made = {0, 0};
    for (u32 e = 0; e < elements; e++) {
      u64 bits = any ? operand_from(format, random_at(seed, matrix, row, column + e))
                     : operand_of(format, small_at(seed, matrix, row, column + e, format.span));
      bits <<= e % half * format.bytes * 8;
      made.x |= e < half ? bits : 0;
      made.y |= e < half ? 0 : bits;
    }
    store(operand + i, made);
  }
}

/* Freivalds: C x = A (B' x) for random x, column by column of tiles, so that a wrong tile is known. In whole numbers
   modulo 2^64, on the CUDA cores, with A and B made anew from their seed: nothing is trusted that the tensor cores or
   the memory had a hand in. Every x is odd: one wrong element is always seen; several cancel out with a probability
   of 2^-11 at the worst for each vector. */
enum { VECTORS = 2 };

DEVICE u64 freivalds_x(u64 seed, u32 vector, u32 column) { return random_at(seed, 2, vector, column) | 1; }

/* projected[column of tiles][k][vector] = sum over the columns of (B' x). */
KERNEL gemm_project(u64 *projected, u32 side, u32 depth, u32 unit, u64 seed) {
  const u32 size = tile_size(unit);
  const int span = format_of(unit).span;
  for (u32 i = blockIdx.x * THREADS + threadIdx.x; i < side * depth; i += gridDim.x * THREADS) {
    u64 sum[VECTORS] = {};
    for (u32 column = i / depth * size; column < (i / depth + 1) * size; column++) {
      u64 value = (u64)(long long)small_at(seed, 1, column, i % depth, span);
      for (u32 v = 0; v < VECTORS; v++)
        sum[v] += value * freivalds_x(seed, v, column);
    }
    for (u32 v = 0; v < VECTORS; v++)
      projected[(u64)i * VECTORS + v] = sum[v];
  }
}

/* The whole number that an element of C is; false when it is none. */
DEVICE bool result_at(const void *results, u32 unit, u64 at, u64 *value) {
  if (unit == FP64)
    return whole(11, 52, ((const u64 *)results)[at], value);
  u32 bits = ((const u32 *)results)[at];
  *value = (u64)(long long)(int)bits;
  return unit == INT8 || whole(8, 23, bits, value);
}

/* Counts, for every tile, its rows that are not A B'. */
KERNEL gemm_prove(const void *results, const u64 *projected, u64 *wrong_rows, u32 side, u32 depth, u32 unit, u64 seed) {
  const u32 size = tile_size(unit);
  const int span = format_of(unit).span;
  for (u32 i = blockIdx.x * THREADS + threadIdx.x; i < side * side * size; i += gridDim.x * THREADS) {
    const u32 tile = i / size, row = tile / side * size + i % size, across = tile % side;
    u64 difference[VECTORS] = {};
    bool right = true;
    for (u32 column = 0; column < size; column++) {
      u64 value = 0;
      right &= result_at(results, unit, (u64)i * size + column, &value);
      for (u32 v = 0; v < VECTORS; v++)
        difference[v] += value * freivalds_x(seed, v, across * size + column);
    }
    for (u32 k = 0; k < depth; k++) {
      u64 value = (u64)(long long)small_at(seed, 0, row, k, span);
      for (u32 v = 0; v < VECTORS; v++)
        difference[v] -= value * projected[((u64)across * depth + k) * VECTORS + v];
    }
    for (u32 v = 0; v < VECTORS; v++)
      right &= difference[v] == 0;
    if (!right)
      add(&wrong_rows[tile], 1);
  }
}
