/* Kernels with which the tests look at a virtual GPU: each as plain as can be, so that what is seen is the GPU. */
#include "device.h"

/* Every vector of a range gets its number and a word; ascending, the blocks taking turns. */
KERNEL probe_write(Vector *memory, u64 vectors, u64 word) {
  for (u64 i = blockIdx.x * THREADS + threadIdx.x; i < vectors; i += gridDim.x * THREADS)
    store(memory + i, Vector{i, word});
}

/* Counts vectors that are not as probe_write left them; the first one's number, and which bits differ. */
KERNEL probe_check(const Vector *memory, u64 vectors, u64 word, u64 *errors, u64 *first, u64 *bits) {
  for (u64 i = blockIdx.x * THREADS + threadIdx.x; i < vectors; i += gridDim.x * THREADS) {
    Vector found = load(memory + i);
    if (found.x == i && found.y == word)
      continue;
    if (add(errors, 1) == 0) {
      *first = i;
      bits[0] = found.x ^ i;
      bits[1] = found.y ^ word;
    }
  }
}

/* Reads two vectors in turn. */
KERNEL probe_take_turns(const Vector *one, const Vector *other, u64 times, u64 *sum) {
  u64 total = 0;
  for (u64 i = 0; i < times; i++)
    total += load_again(one).x + load_again(other).x;
  add(sum, total);
}

/* What every SM makes of a result, and how often each was asked. */
KERNEL probe_results(float value, double large, int whole, u64 times, u64 *wrong, u64 *seen) {
  u32 sm = sm_id();
  for (u64 i = 0; i < times; i++) {
    wrong[3 * sm] += !(faulty_result(value) == value);
    wrong[3 * sm + 1] += !(faulty_result(large) == large);
    wrong[3 * sm + 2] += faulty_result(whole) != whole;
  }
  add(seen + sm, 1);
}

/* An argument of each size comes through. */
KERNEL probe_arguments(u64 *out, unsigned char byte, unsigned short half, u32 word, u64 large, float real) {
  out[0] = byte;
  out[1] = half;
  out[2] = word;
  out[3] = large;
  out[4] = (u64)(real * 8);
  out[5] = gridDim.x;
  sync_block();
}
