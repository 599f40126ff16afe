/* Faults of the arithmetic units of one SM (keys `compute.*`, toolkit/virtual/hardware.py). */
#ifndef RACKPROOF_COMPUTE_FAULTS_H
#define RACKPROOF_COMPUTE_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum compute_fault { COMPUTE_RIGHT, COMPUTE_WRONG_FMA, COMPUTE_ROUNDING, COMPUTE_NAN };

struct compute_faults {
  enum compute_fault fault;
  unsigned int sm;     /* that has it */
  uint64_t results;    /* it has made so far */
  uint64_t generation; /* of the state this was read from */
};

void compute_refresh(struct compute_faults *compute, int gpu);

/* What the faulty SM gives for a right result. */
float compute_faulty_float(struct compute_faults *compute, float value);
double compute_faulty_double(struct compute_faults *compute, double value);
int compute_faulty_int(struct compute_faults *compute, int value);

#ifdef __cplusplus
}
#endif

#endif
