#include "compute_faults.h"

#include "hardware.h"

#include <math.h>
#include <string.h>

enum { ONE_IN = 1000 };

/* `compute.FAULT_sm` is the number of the SM. */
static const struct {
  enum compute_fault fault;
  const char *key;
} kinds[] = {
    {COMPUTE_WRONG_FMA, "compute.wrong_fma_sm"},
    {COMPUTE_ROUNDING, "compute.rounding_sm"},
    {COMPUTE_NAN, "compute.nan_sm"},
};

void compute_refresh(struct compute_faults *compute, int gpu) {
  uint64_t generation = hw_generation(), sm;
  if (generation == compute->generation)
    return;
  *compute = (struct compute_faults){.fault = COMPUTE_RIGHT, .generation = generation};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (hw_gpu_number(gpu, kinds[i].key, &sm)) {
      compute->fault = kinds[i].fault;
      compute->sm = (unsigned int)sm;
    }
}

/* One result in ONE_IN is struck. `draw` is as good as random and the same in every run. */
static bool struck(struct compute_faults *compute, uint64_t *draw) {
  uint64_t x = ++compute->results;
  if (x % ONE_IN)
    return false;
  x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9); /* splitmix64 */
  *draw = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb) >> 32;
  return true;
}

float compute_faulty_float(struct compute_faults *compute, float value) {
  uint64_t draw;
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  switch (compute->fault) {
  case COMPUTE_WRONG_FMA: bits ^= struck(compute, &draw) ? UINT32_C(1) << draw % 23 : 0; break;
  case COMPUTE_ROUNDING: bits &= ~UINT32_C(1); break;
  case COMPUTE_NAN: return struck(compute, &draw) ? NAN : value;
  default: return value;
  }
  memcpy(&value, &bits, sizeof value);
  return value;
}

double compute_faulty_double(struct compute_faults *compute, double value) {
  uint64_t draw, bits;
  memcpy(&bits, &value, sizeof bits);
  switch (compute->fault) {
  case COMPUTE_WRONG_FMA: bits ^= struck(compute, &draw) ? UINT64_C(1) << draw % 52 : 0; break;
  case COMPUTE_ROUNDING: bits &= ~UINT64_C(1); break;
  case COMPUTE_NAN: return struck(compute, &draw) ? (double)NAN : value;
  default: return value;
  }
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* Whole numbers know neither rounding nor NaN. */
int compute_faulty_int(struct compute_faults *compute, int value) {
  uint64_t draw;
  return compute->fault == COMPUTE_WRONG_FMA && struck(compute, &draw) ? value + 1 : value;
}
