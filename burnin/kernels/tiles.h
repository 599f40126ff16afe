/* What the matrix products have in common: where operands come from, what is kept of results, who is blamed.

   C = A B', A of side x TILE rows and B of as many, each row `depth` elements long and without gaps in memory. C is
   side x side tiles. In iteration r, block c multiplies tile (c + r) mod tiles: after `tiles` iterations every block,
   and so every SM, has done every tile. Nothing of C need be kept: a tile is its digest, an order-free sum of hashes of
   (index, bits), which differs from the reference when any bit of any element does, NaN or not. */
#ifndef BURNIN_TILES_H
#define BURNIN_TILES_H
#include "device.h"

/* As burnin/gemm/units.py numbers them. */
enum { FP64, TF32, BF16, FP16, INT8, FP8 };

#ifdef HOST_KERNELS
enum { TILE = 8, TILE_FP64 = 8, BLOCKS = 1, BLOCKS_FP64 = 1 };
#define BLOCKS_PER_SM(count)
#else
/* Of the tensor core tiles: rows and columns, blocks that run on an SM at once. A double takes twice the registers. */
enum { TILE = 128, TILE_FP64 = 64, BLOCKS = 2, BLOCKS_FP64 = 3 };
#define BLOCKS_PER_SM(count) __launch_bounds__(THREADS, count)
#endif
enum { CHUNK_BYTES = 64 }; /* of a row: what is fetched at once, and what `depth` is a multiple of */

enum { MAX_SMS = 1024, MAX_WRONG = 256 };

/* One tile that did not come out as the reference. */
struct Wrong {
  u64 iteration, tile, sm, got, expected;
};

/* Counters of all launches since they were last cleared. `sum` is of every tile's digest. */
struct Tally {
  u64 tiles, wrong, sum;
  u64 tiles_by_sm[MAX_SMS], wrong_by_sm[MAX_SMS];
  Wrong first[MAX_WRONG];
};

/* What a block got in its last iteration, and where it ran. */
struct Answer {
  u64 digest, sm;
};

/* splitmix64's finalizer (Steele, Lea, Flood 2014). */
DEVICE u64 mixed(u64 z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

/* The random word at a place of a matrix; A is number 0, B is 1, Freivalds' vectors are rows of 2. */
DEVICE u64 random_at(u64 seed, u32 matrix, u32 row, u32 column) {
  return mixed((seed + matrix * 0xD1B54A32D192ED03ull) ^ ((u64)row << 32 | column));
}

/* -span .. span */
DEVICE int small_at(u64 seed, u32 matrix, u32 row, u32 column, int span) {
  u64 high = random_at(seed, matrix, row, column) >> 32;
  return (int)((high * (u32)(2 * span + 1)) >> 32) - span;
}

/* An operand's bits: IEEE-like, or two's complement where `exponent` is 0. `ignored` low bits of the mantissa are not
   looked at by the unit. |operand| <= span keeps every partial sum of 4096 products exact in the accumulator: 24 bits
   for floats, 53 for doubles, and about 14 for FP8, which Hopper adds up in fewer bits than it stores. */
struct Format {
  u32 bytes, exponent, mantissa, ignored;
  int span;
};

DEVICE Format format_of(u32 unit) {
  switch (unit) {
  case FP64: return Format{8, 11, 52, 0, 1000000};
  case TF32: return Format{4, 8, 23, 13, 40};
  case BF16: return Format{2, 8, 7, 0, 15};
  case FP16: return Format{2, 5, 10, 0, 15};
  case INT8: return Format{1, 0, 8, 0, 127};
  default: return Format{1, 4, 3, 0, 1};
  }
}

/* A small whole number as an operand. */
DEVICE u64 operand_of(Format f, int value) {
  u64 magnitude = value < 0 ? (u64)-value : (u64)value;
  if (f.exponent == 0)
    return (u64)value & 0xFF;
  if (magnitude == 0)
    return 0;
  u32 top = 0;
  while (magnitude >> (top + 1))
    top++;
  u64 bias = (1ull << (f.exponent - 1)) - 1, fraction = (magnitude << (f.mantissa - top)) & ((1ull << f.mantissa) - 1);
  return (u64)(value < 0) << (f.exponent + f.mantissa) | (bias + top) << f.mantissa | fraction;
}

/* Any bits as an operand: every mantissa, both signs, 1 of 16 subnormal, exponents so that no sum overflows. */
DEVICE u64 operand_from(Format f, u64 bits) {
  if (f.exponent == 0)
    return bits & 0xFF;
  u64 fraction = bits & ((1ull << f.mantissa) - 1) & ~((1ull << f.ignored) - 1), choice = mixed(bits);
  u64 bias = (1ull << (f.exponent - 1)) - 1, spread = f.exponent == 4 ? 3 : 8;
  u64 exponent = choice % 16 == 0 ? 0 : bias - spread + (choice >> 8) % (2 * spread + 1);
  return (choice >> 63) << (f.exponent + f.mantissa) | exponent << f.mantissa | fraction;
}

/* A sum's bits as the whole number they must be; false for a fraction, an infinity, a NaN, and what is too large to be
   exact. Bits are looked at, not compared as numbers: a comparison with NaN says nothing. */
DEVICE bool whole(u32 exponent, u32 mantissa, u64 bits, u64 *value) {
  u64 field = bits >> mantissa & ((1ull << exponent) - 1), bias = (1ull << (exponent - 1)) - 1;
  u64 fraction = bits & ((1ull << mantissa) - 1);
  if (field == 0 && fraction == 0) {
    *value = 0;
    return true;
  }
  if (field < bias || field > bias + mantissa)
    return false;
  u32 below = mantissa - (u32)(field - bias);
  u64 magnitude = fraction | 1ull << mantissa;
  *value = bits >> (exponent + mantissa) & 1 ? 0 - (magnitude >> below) : magnitude >> below;
  return (magnitude & ((1ull << below) - 1)) == 0;
}

/* What an element adds to the digest of its tile. */
DEVICE u64 digest_of(u32 index, u64 bits) {
  u64 z = (bits + index * 0x9E3779B97F4A7C15ull) * 0xBF58476D1CE4E5B9ull;
  return (z ^ (z >> 32)) * 0x94D049BB133111EBull;
}

/* One thread's note of a tile that the whole block has done. `reference` and `answers` may be null. */
DEVICE void account(Tally *tally, Answer *answers, const u64 *reference, u64 iteration, u32 tile, u64 digest) {
  u32 sm = sm_id();
  u32 place = sm < MAX_SMS ? sm : MAX_SMS - 1;
  add(&tally->tiles, 1);
  add(&tally->sum, digest);
  add(&tally->tiles_by_sm[place], 1);
  if (answers)
    answers[blockIdx.x] = Answer{digest, sm};
  if (!reference || reference[tile] == digest)
    return;
  add(&tally->wrong_by_sm[place], 1);
  u64 number = add(&tally->wrong, 1);
  if (number < MAX_WRONG)
    tally->first[number] = Wrong{iteration, tile, sm, digest, reference[tile]};
}

/* What every kernel of a unit is told. `results` (null: not kept) takes C tile by tile, each row by row.
   `iterations` from number `first` on. */
#define PRODUCT_PARAMETERS                                                                                             \
  const Vector *a, const Vector *b, void *results, const u64 *reference, Answer *answers, Tally *tally, u32 side,      \
      u32 depth, u64 first, u32 iterations
#define PRODUCT_ARGUMENTS a, b, results, reference, answers, tally, side, depth, first, iterations

/* A block's work. PRODUCT multiplies one tile: `multiply(a, b, vectors)` with rows of so many vectors, then
   `each(f)` calls f(row, column, bits) for every element this thread has, then `block_sum`. */
template <class PRODUCT> DEVICE void rotate(PRODUCT &product, PRODUCT_PARAMETERS) {
  typedef typename PRODUCT::Bits Bits;
  const u32 size = PRODUCT::SIZE, tiles = side * side, vectors = depth * PRODUCT::BYTES / sizeof(Vector);
  for (u32 i = 0; i < iterations; i++) {
    u32 tile = (u32)((blockIdx.x + first + i) % tiles);
    product.multiply(a + (u64)(tile / side) * size * vectors, b + (u64)(tile % side) * size * vectors, vectors);
    /* beyond the first `tiles` blocks, a block repeats what another one keeps */
    Bits *kept = results && blockIdx.x < tiles ? (Bits *)results + (u64)tile * size * size : nullptr;
    u64 digest = 0;
    product.each([&](u32 row, u32 column, Bits bits) {
      u32 at = row * size + column;
      digest += digest_of(at, bits);
      if (kept)
        kept[at] = bits;
    });
    digest = product.block_sum(digest);
    if (threadIdx.x == 0)
      account(tally, answers, reference, first + i, tile, digest);
  }
}
#endif
