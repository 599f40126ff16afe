/* Starts kernels whose threads are fibers. */
#ifndef LOCKSTEP_FIBERS_H
#define LOCKSTEP_FIBERS_H
#include "lockstep.h"

#include <functional>

namespace lockstep {

enum class Timing { AT_ONCE, WHEN_AWAITED }; /* of cp.async */

/* Runs `kernel` by every thread of `blocks` blocks, block b on SM b % sms. `seed` 0: threads in order of number. */
void launch(u32 blocks, u32 sms, Timing when, u32 seed, std::function<void()> kernel);

/* Of the rows that an ldmatrix read at once, how many met another one in a bank; since the program started. */
u64 bank_conflicts();

/* An operand's value by its bits. */
double operand_value(u32 unit, u64 bits);

} // namespace lockstep
#endif
