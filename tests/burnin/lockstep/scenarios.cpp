/* The kernels of gemm.cu, device path, run thread by thread and compared with a plain matrix product. */
#include "fibers.h"

#include "gemm.cu"

#include <vector>

namespace {

/* What Python asks for. `spoil` (1): one bit of one result is turned before the proof. */
struct Wanted {
  u32 unit, side, depth, slots, sms, iterations, any, spoil, late, order;
  u64 seed;
};

/* What it is told. */
struct Seen {
  u64 different;       /* elements of C that are not the plain product */
  u64 digests_wrong;   /* blocks whose digest is not that of the plain product's tile */
  u64 tiles, wrong;    /* as counted by the kernel */
  u64 sms_seen;
  u64 refuted;         /* tiles that the proof found wrong */
  u64 conflicts;       /* of ldmatrix in banks of shared memory */
};

void product(u32 unit, PRODUCT_PARAMETERS) {
  switch (unit) {
  case FP64: return gemm_fp64(PRODUCT_ARGUMENTS);
  case TF32: return gemm_tf32(PRODUCT_ARGUMENTS);
  case BF16: return gemm_bf16(PRODUCT_ARGUMENTS);
  case FP16: return gemm_fp16(PRODUCT_ARGUMENTS);
  case INT8: return gemm_int8(PRODUCT_ARGUMENTS);
  default: return gemm_fp8_mma(PRODUCT_ARGUMENTS);
  }
}

struct Run {
  Wanted w;
  Format format;
  u32 size, rows, tiles;
  std::vector<Vector> a, b;
  std::vector<u64> plain, results, digests, projected, wrong_rows;
  std::vector<Answer> answers;
  Tally tally = {};

  explicit Run(const Wanted &wanted)
      : w(wanted), format(format_of(w.unit)), size(tile_size(w.unit)), rows(w.side * size), tiles(w.side * w.side),
        a((size_t)rows * w.depth * format.bytes / sizeof(Vector)), b(a.size()), plain((size_t)rows * rows),
        results(plain.size()), digests(tiles), projected((size_t)w.side * w.depth * VECTORS), wrong_rows(tiles),
        answers(w.slots) {}

  void start(u32 blocks, std::function<void()> kernel) {
    lockstep::launch(blocks, w.sms, w.late ? lockstep::Timing::WHEN_AWAITED : lockstep::Timing::AT_ONCE, w.order,
                     kernel);
  }

  void fill() {
    start(3, [&] { gemm_fill(a.data(), 0, rows, w.depth, w.unit, w.any, w.seed); });
    start(3, [&] { gemm_fill(b.data(), 1, rows, w.depth, w.unit, w.any, w.seed); });
  }

  double operand(const std::vector<Vector> &matrix, u32 row, u32 column) const {
    u64 bits = 0;
    std::memcpy(&bits, (const char *)matrix.data() + ((size_t)row * w.depth + column) * format.bytes, format.bytes);
    return lockstep::operand_value(w.unit, bits);
  }

  u64 plain_bits(u32 row, u32 column) const {
    double doubles = 0;
    float floats = 0;
    for (u32 k = 0; k < w.depth; k += 32 / format.bytes) { /* as much as one instruction, or eight, take at once */
      double sum = 0;
      for (u32 e = 0; e < 32 / format.bytes; e++) {
        double one = operand(a, row, k + e) * operand(b, column, k + e);
        doubles += one, sum += one;
      }
      floats = (float)((double)floats + sum);
    }
    if (w.unit == FP64)
      return bits_of(doubles);
    return w.unit == INT8 ? bits_of((int)doubles) : bits_of(floats);
  }

  u64 result(u32 tile, u32 at) const {
    size_t i = (size_t)tile * size * size + at;
    return w.unit == FP64 ? results[i] : ((const u32 *)results.data())[i];
  }

  /* Compares all of C, and makes the digests of what it ought to be. */
  u64 differences() {
    u64 count = 0;
    for (u32 tile = 0; tile < tiles; tile++)
      for (u32 at = 0; at < size * size; at++) {
        u64 right = plain_bits(tile / w.side * size + at / size, tile % w.side * size + at % size);
        digests[tile] += digest_of(at, right);
        count += right != result(tile, at);
      }
    return count;
  }

  void multiply(void *kept, const u64 *reference, u64 first, u32 iterations) {
    start(w.slots, [&] {
      product(w.unit, a.data(), b.data(), kept, reference, answers.data(), &tally, w.side, w.depth, first, iterations);
    });
  }

  u64 refuted() {
    start(3, [&] { gemm_project(projected.data(), w.side, w.depth, w.unit, w.seed); });
    if (w.spoil)
      ((unsigned char *)results.data())[((size_t)(tiles - 1) * size * size + 77) * (w.unit == FP64 ? 8 : 4)] ^= 1;
    start(3, [&] {
      gemm_prove(results.data(), projected.data(), wrong_rows.data(), w.side, w.depth, w.unit, w.seed);
    });
    u64 count = 0;
    for (u64 wrong : wrong_rows)
      count += wrong != 0;
    return count;
  }
};

} // namespace

/* Multiplies once, keeping results, and compares them; then iterates against the digests of the plain product. */
extern "C" void lockstep_product(const Wanted *wanted, Seen *seen) {
  Run run(*wanted);
  run.fill();
  run.multiply(run.results.data(), nullptr, 0, 1);
  seen->different = run.differences();
  for (u32 slot = 0; slot < wanted->slots; slot++)
    seen->digests_wrong += run.answers[slot].digest != run.digests[slot % run.tiles];
  run.multiply(nullptr, run.digests.data(), 0, wanted->iterations);
  seen->tiles = run.tally.tiles, seen->wrong = run.tally.wrong;
  for (u64 count : run.tally.tiles_by_sm)
    seen->sms_seen += count != 0;
  seen->refuted = wanted->any ? 0 : run.refuted();
  seen->conflicts = lockstep::bank_conflicts();
}

/* Whether two of the lanes whose doubles are read together meet in a bank: a half warp, 4 rows of 4 doubles. */
extern "C" u32 lockstep_double_conflicts() {
  u32 count = 0;
  for (u32 first = 0; first < 64; first += 4)
    for (u32 slab = 0; slab < 2; slab++) {
      u32 banks = 0; /* pairs of 4-byte banks: a double */
      for (u32 lane = 0; lane < 16; lane++) {
        u32 row = first + lane / 4, element = 4 * slab + lane % 4;
        u32 at = row * CHUNK_BYTES + (element / 2 ^ SwizzleDoubles::of(row)) * 16 + element % 2 * 8;
        count += banks >> (at / 8 % 16) & 1;
        banks |= 1u << (at / 8 % 16);
      }
    }
  return count;
}
