/* What gpu-burn, DCGM's memory plugin and cuda_memtest do to memory, written anew from their published sources for the
   virtual GPU of benchmarks/hbm_fault_coverage.py alone: it is never built for a real one. published_tools.py has the
   sources, the order of the passes and their defaults.

   One thread a block, one block after the other: a block takes a piece of `piece` vectors (cuda_memtest's BLOCKSIZE) and
   goes through it upwards. On a GPU the blocks of the originals run at the same time. */
#include "device.h"

enum Kind : u32 { CONSTANT, OWN_ADDRESS, SHIFTED_BIT, MODULO_20, PAIRS };
enum : u32 { WORDS = 4 /* of 32 bits, in a vector */ };

/* `flip` is all ones for the complement. What `a` and `b` mean is the kind's own. */
struct Published {
  u32 kind;
  u64 a, b;
  u32 flip;
};

/* The word at position `i` of its piece. */
DEVICE u32 word(const Published &pattern, u64 i) {
  switch (pattern.kind) {
  case SHIFTED_BIT: return 1u << ((pattern.a + i) & 31);
  case MODULO_20: return (u32)(i % 20 == pattern.a ? pattern.b : ~pattern.b);
  case PAIRS: { /* a bit for every 16 words, inverted every 8 bytes */
    u32 bit = 1u << (i / 16 & 31);
    return i / 2 & 1 ? ~bit : bit;
  }
  default: return (u32)pattern.a;
  }
}

DEVICE Vector vector_of(const Published &pattern, const Vector *at, u64 i) {
  if (pattern.kind == OWN_ADDRESS)
    return Vector{(u64)at, (u64)at + 8};
  u64 w[WORDS];
  for (u32 k = 0; k < WORDS; k++)
    w[k] = word(pattern, WORDS * i + k) ^ pattern.flip;
  return Vector{w[0] | w[1] << 32, w[2] | w[3] << 32};
}

/* What is looked at in vector `i`: all of it, but for modulo-20, which reads the chosen word of 20 alone. */
DEVICE Vector looked_at(const Published &pattern, u64 i) {
  if (pattern.kind != MODULO_20)
    return Vector{~0ull, ~0ull};
  u64 w[WORDS];
  for (u32 k = 0; k < WORDS; k++)
    w[k] = (WORDS * i + k) % 20 == pattern.a ? 0xffffffffu : 0;
  return Vector{w[0] | w[1] << 32, w[2] | w[3] << 32};
}

template <bool CHECK, bool WRITE>
DEVICE void pass(Vector *memory, u64 vectors, u64 piece, const Published &held, const Published &next, u64 *errors) {
  for (u64 first = blockIdx.x * piece; first < vectors; first += gridDim.x * piece)
    for (u64 i = 0; i < piece && first + i < vectors; i++) {
      Vector *at = memory + first + i, mask = looked_at(held, i);
      if (CHECK && (mask.x | mask.y)) {
        Vector got = load(at), want = vector_of(held, at, i);
        if (((got.x ^ want.x) & mask.x) | ((got.y ^ want.y) & mask.y))
          add(errors, 1);
      }
      if (WRITE)
        store(at, vector_of(next, at, i));
    }
}

KERNEL published_write(Vector *memory, u64 vectors, u64 piece, u32 kind, u64 a, u64 b, u32 flip) {
  Published next{kind, a, b, flip};
  pass<false, true>(memory, vectors, piece, next, next, nullptr);
}

KERNEL published_check(Vector *memory, u64 vectors, u64 piece, u32 kind, u64 a, u64 b, u32 flip, u64 *errors) {
  Published held{kind, a, b, flip};
  pass<true, false>(memory, vectors, piece, held, held, errors);
}

/* Each word is checked and at once overwritten with its complement. */
KERNEL published_invert(Vector *memory, u64 vectors, u64 piece, u32 kind, u64 a, u64 b, u32 flip, u64 *errors) {
  Published held{kind, a, b, flip}, next{kind, a, b, ~flip};
  pass<true, true>(memory, vectors, piece, held, next, errors);
}

/* A 32-bit word, read and written through its vector. */
DEVICE u32 load_word(const Vector *memory, u64 i) {
  Vector v = load(memory + i / WORDS);
  return (u32)((i & 2 ? v.y : v.x) >> 32 * (i & 1));
}

DEVICE void store_word(Vector *memory, u64 i, u32 value) {
  Vector v = load(memory + i / WORDS);
  u64 &half = i & 2 ? v.y : v.x;
  u32 shift = 32 * (u32)(i & 1);
  half = (half & ~(0xffffffffull << shift)) | (u64)value << shift;
  store(memory + i / WORDS, v);
}

/* cuda_memtest test 0: words 0, 1, 2, 4, 8, ... of each piece hold a walking bit. */
KERNEL published_walk_address(Vector *memory, u64 vectors, u64 piece, u64 *errors) {
  for (u64 first = blockIdx.x * piece; first < vectors; first += gridDim.x * piece) {
    Vector *here = memory + first;
    u64 words = WORDS * (piece < vectors - first ? piece : vectors - first);
    for (u32 checking = 0; checking < 2; checking++) {
      u32 bit = 1;
      for (u64 i = 0; i < words; i = i ? 2 * i : 1) {
        if (!checking)
          store_word(here, i, bit);
        else if (load_word(here, i) != bit)
          add(errors, 1);
        if (i) /* words 0 and 1 hold the same bit */
          bit <<= 1;
      }
    }
  }
}

/* cuda_memtest test 5: the first half of a piece is copied to the second, and that back, eight words further. */
KERNEL published_move(Vector *memory, u64 vectors, u64 piece) {
  for (u64 first = blockIdx.x * piece; first + piece <= vectors; first += gridDim.x * piece) {
    Vector *low = memory + first, *high = low + piece / 2;
    u64 half = piece / 2, shift = 2;
    for (u64 i = 0; i < half; i++)
      store(high + i, load(low + i));
    for (u64 i = 0; i < half; i++)
      store(low + (i + shift) % half, load(high + i));
  }
}

/* And its check: the two words of every pair are equal, whatever they are. */
KERNEL published_check_pairs(Vector *memory, u64 vectors, u64 *errors) {
  for (u64 i = blockIdx.x; i < vectors; i += gridDim.x) {
    Vector v = load(memory + i);
    if ((u32)v.x != (u32)(v.x >> 32) || (u32)v.y != (u32)(v.y >> 32))
      add(errors, 1);
  }
}

/* gpu-burn: one product's result, the same every time, as the GEMM stores it. `result` is in host memory. */
KERNEL published_burn_store(Vector *memory, u64 vectors, const Vector *result) {
  for (u64 i = blockIdx.x; i < vectors; i += gridDim.x)
    store(memory + i, result[i]);
}

DEVICE float as_float(u32 bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

/* compare.cu: fabsf(C[0] - C[i]) > 0.001 counts, so NaN does not. */
DEVICE u32 differs(u64 one, u64 other) {
  u32 count = 0;
  for (u32 half = 0; half < 64; half += 32) {
    float apart = as_float((u32)(one >> half)) - as_float((u32)(other >> half));
    count += (apart < 0 ? -apart : apart) > 0.001f;
  }
  return count;
}

KERNEL published_burn_compare(const Vector *memory, u64 vectors, u64 results, u64 *errors) {
  for (u64 i = blockIdx.x; i < vectors; i += gridDim.x) {
    Vector first = load(memory + i);
    for (u64 n = 1; n < results; n++) {
      Vector other = load(memory + n * vectors + i);
      if (u32 wrong = differs(first.x, other.x) + differs(first.y, other.y))
        add(errors, wrong);
    }
  }
}

/* gpu-burn's product, in FP32; `turn` says which SM gets which rows, as a scheduler would. All of it in host memory. */
KERNEL published_burn_product(const float *a, const float *b, float *c, u32 rows, u32 columns, u32 depth, u32 turn) {
  for (u32 row = (blockIdx.x + turn) % gridDim.x; row < rows; row += gridDim.x)
    for (u32 column = 0; column < columns; column++) {
      float sum = 0;
      for (u32 k = 0; k < depth; k++)
        sum += a[row * depth + k] * b[column * depth + k];
      c[row * columns + column] = faulty_result(sum);
    }
}
