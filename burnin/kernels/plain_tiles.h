/* One tile on a processor: a plain loop. Each sum passes `faulty_result`, by which a virtual SM goes wrong. */
#ifndef BURNIN_PLAIN_TILES_H
#define BURNIN_PLAIN_TILES_H
#include "tiles.h"

template <class TO, class FROM> static inline TO cast_bits(FROM from) {
  static_assert(sizeof(TO) == sizeof(FROM), "the same bits");
  TO to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

/* A narrow float, subnormal or not: a float with the same fraction and too small an exponent, times what it lacks. */
static inline float widened(u32 bits, u32 width, u32 mantissa, float lacking) {
  float magnitude = cast_bits<float>((bits & ((1u << (width - 1)) - 1)) << (23 - mantissa)) * lacking;
  return bits >> (width - 1) & 1 ? -magnitude : magnitude;
}

struct Fp64 {
  enum { SIZE = TILE_FP64, BYTES = 8 };
  typedef double Sum;
  typedef u64 Bits;
  static double value(u64 bits) { return cast_bits<double>(bits); }
};
struct Tf32 {
  enum { SIZE = TILE, BYTES = 4 };
  typedef float Sum;
  typedef u32 Bits;
  static float value(u64 bits) { return cast_bits<float>((u32)bits); }
};
struct Bf16 : Tf32 {
  enum { BYTES = 2 };
  static float value(u64 bits) { return cast_bits<float>((u32)bits << 16); }
};
struct Fp16 : Tf32 {
  enum { BYTES = 2 };
  static float value(u64 bits) { return widened((u32)bits, 16, 10, 0x1p112f); }
};
struct Fp8 : Tf32 {
  enum { BYTES = 1 };
  static float value(u64 bits) { return widened((u32)bits, 8, 3, 0x1p120f); }
};
struct Int8 {
  enum { SIZE = TILE, BYTES = 1 };
  typedef int Sum;
  typedef u32 Bits;
  static int value(u64 bits) { return (signed char)bits; }
};

template <class UNIT> struct PlainTile {
  enum { SIZE = UNIT::SIZE, BYTES = UNIT::BYTES, ELEMENTS = sizeof(Vector) / UNIT::BYTES };
  typedef typename UNIT::Bits Bits;
  typedef typename UNIT::Sum Sum;
  Sum sum[SIZE][SIZE];

  void multiply(const Vector *a, const Vector *b, u32 vectors) {
    Sum left[SIZE][ELEMENTS], right[ELEMENTS][SIZE];
    for (u32 i = 0; i < SIZE * SIZE; i++)
      sum[i / SIZE][i % SIZE] = 0;
    for (u32 vector = 0; vector < vectors; vector++) {
      for (u32 row = 0; row < SIZE; row++) {
        Vector one = load(a + row * vectors + vector), other = load(b + row * vectors + vector);
        for (u32 e = 0; e < ELEMENTS; e++)
          left[row][e] = element(one, e), right[e][row] = element(other, e);
      }
      for (u32 row = 0; row < SIZE; row++)
        for (u32 e = 0; e < ELEMENTS; e++)
          for (u32 column = 0; column < SIZE; column++)
            sum[row][column] += left[row][e] * right[e][column];
    }
    for (u32 i = 0; i < SIZE * SIZE; i++)
      sum[i / SIZE][i % SIZE] = faulty_result(sum[i / SIZE][i % SIZE]);
  }

  static Sum element(Vector vector, u32 number) {
    u32 at = number * BYTES;
    u64 word = (at < 8 ? vector.x : vector.y) >> (at % 8 * 8);
    return UNIT::value(BYTES == 8 ? word : word & ((1ull << (BYTES % 8 * 8)) - 1));
  }

  template <class F> void each(F f) const {
    for (u32 row = 0; row < SIZE; row++)
      for (u32 column = 0; column < SIZE; column++)
        f(row, column, cast_bits<Bits>(sum[row][column]));
  }

  u64 block_sum(u64 value) const { return value; } /* of one thread */
};

#define MULTIPLY(type)                                                                                                 \
  type product;                                                                                                        \
  rotate(product, PRODUCT_ARGUMENTS)
#define MULTIPLY_BYTES(unit) MULTIPLY(PlainTile<unit>)
#define MULTIPLY_DOUBLES MULTIPLY(PlainTile<Fp64>)
#define HAS_FP8_MMA 1
#endif
