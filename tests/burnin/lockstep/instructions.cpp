/* ldmatrix and mma.sync of a warp, with the fragments of the PTX ISA ("Matrix Fragments for mma.m16n8k32" and its kin):
   lane l is row (or column) l / 4 and, within 16 bytes, bytes 4 (l % 4) .. */
#include "fibers.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace lockstep {
namespace {

enum { FP64, TF32, BF16, FP16, INT8, FP8 }; /* as in tiles.h */
u64 conflicts;

/* IEEE-like bits of any width: the definition, slow and plain. */
double ieee(u64 bits, int exponent, int mantissa) {
  u64 field = bits >> mantissa & ((1ull << exponent) - 1), fraction = bits & ((1ull << mantissa) - 1);
  int bias = (1 << (exponent - 1)) - 1;
  double sign = bits >> (exponent + mantissa) & 1 ? -1 : 1;
  if (field == 0)
    return sign * std::ldexp((double)fraction, 1 - bias - mantissa);
  return sign * std::ldexp((double)(fraction | 1ull << mantissa), (int)field - bias - mantissa);
}

/* All values of a narrow format: the definition is too slow for what is looked up so often. */
double narrow(u64 bits, int exponent, int mantissa) {
  static std::vector<double> tables[17];
  std::vector<double> &table = tables[exponent + mantissa + (exponent == 8)]; /* FP16 is as wide as BF16 */
  for (u64 next = table.size(); table.size() < 2ull << (exponent + mantissa); next++)
    table.push_back(ieee(next, exponent, mantissa));
  return table[bits];
}

void load_matrices(void **brought) {
  Load *lanes[WARP];
  for (u32 lane = 0; lane < WARP; lane++)
    lanes[lane] = (Load *)brought[lane];
  for (u32 matrix = 0; matrix < 4; matrix++) {
    u32 banks = 0;
    for (u32 row = 0; row < 8; row++) {
      uintptr_t at = (uintptr_t)lanes[matrix * 8 + row]->row;
      if (at % 16) {
        std::fprintf(stderr, "lockstep: ldmatrix of a row that is not aligned\n");
        std::abort();
      }
      u32 bank = 1u << (at / 16 % 8); /* a row is 4 of the 32 banks */
      conflicts += (banks & bank) != 0;
      banks |= bank;
    }
    for (u32 lane = 0; lane < WARP; lane++)
      std::memcpy(&lanes[lane]->out[matrix], (const char *)lanes[matrix * 8 + lane / 4]->row + lane % 4 * 4, 4);
  }
}

/* 16 rows of A and 8 columns of B, 32 bytes each, put together from the lanes. */
template <class T> struct Slab {
  unsigned char a[16][32], b[8][32];

  explicit Slab(void **brought) {
    for (u32 lane = 0; lane < WARP; lane++) {
      const Multiply<T> *mine = (const Multiply<T> *)brought[lane];
      u32 g = lane / 4, t = lane % 4 * 4;
      std::memcpy(&a[g][t], &mine->a[0], 4), std::memcpy(&a[g + 8][t], &mine->a[1], 4);
      std::memcpy(&a[g][t + 16], &mine->a[2], 4), std::memcpy(&a[g + 8][t + 16], &mine->a[3], 4);
      std::memcpy(&b[g][t], &mine->b[0], 4), std::memcpy(&b[g][t + 16], &mine->b[1], 4);
    }
  }
};

/* The products of a slab are summed exactly, and rounded once when they join C. */
template <class T, u32 UNIT, u32 BYTES> void multiply(void **brought) {
  Slab<T> slab(brought);
  for (u32 lane = 0; lane < WARP; lane++)
    for (u32 e = 0; e < 4; e++) {
      u32 row = lane / 4 + e / 2 * 8, column = lane % 4 * 2 + e % 2;
      double sum = 0;
      for (u32 at = 0; at < 32; at += BYTES) {
        u64 a = 0, b = 0;
        std::memcpy(&a, &slab.a[row][at], BYTES), std::memcpy(&b, &slab.b[column][at], BYTES);
        sum += operand_value(UNIT, a) * operand_value(UNIT, b);
      }
      T &c = ((Multiply<T> *)brought[lane])->c[e];
      c = (T)((double)c + sum);
    }
}

void multiply_doubles(void **brought) {
  MultiplyDoubles *lanes[WARP];
  for (u32 lane = 0; lane < WARP; lane++)
    lanes[lane] = (MultiplyDoubles *)brought[lane];
  for (u32 lane = 0; lane < WARP; lane++)
    for (u32 e = 0; e < 2; e++)
      for (u32 k = 0; k < 4; k++)
        lanes[lane]->c[e] += lanes[lane / 4 * 4 + k]->a * lanes[(lane % 4 * 2 + e) * 4 + k]->b;
}

} // namespace

double operand_value(u32 unit, u64 bits) {
  switch (unit) {
  case FP64: return ieee(bits, 11, 52);
  case TF32: return ieee(bits & ~0x1FFFull, 8, 23); /* the low 13 bits are not looked at */
  case BF16: return narrow(bits, 8, 7);
  case FP16: return narrow(bits, 5, 10);
  case INT8: return (signed char)bits;
  default: return narrow(bits, 4, 3);
  }
}

u64 bank_conflicts() { return conflicts; }

Together ldmatrix() { return load_matrices; }
Together tf32() { return multiply<float, TF32, 4>; }
Together bf16() { return multiply<float, BF16, 2>; }
Together fp16() { return multiply<float, FP16, 2>; }
Together int8() { return multiply<int, INT8, 1>; }
Together fp8() { return multiply<float, FP8, 1>; }
Together fp64() { return multiply_doubles; }

} // namespace lockstep
