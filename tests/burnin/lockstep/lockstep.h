/* burnin/kernels/device.h and tensor.h for a processor, thread by thread: a block's 256 threads are fibers, and what
   threads do together happens when the last of them has come. So the device path itself is run, its index arithmetic
   and its barriers, with every instruction of the tensor cores as the PTX ISA describes it.

   Copies by cp.async come at the worst time: at once, or only when they are waited for, their target undefined until
   then. Threads run in an order that is chosen. A thread that does not come ends the program with a message. */
#ifndef LOCKSTEP_H
#define LOCKSTEP_H
#define BURNIN_DEVICE_H
#define BURNIN_TENSOR_H

#include <cstdint>
#include <cstring>

typedef unsigned int u32;
typedef unsigned long long u64;

struct alignas(16) Vector {
  u64 x, y;
};

#define KERNEL extern "C" void
#define DEVICE inline
#define __shared__ static /* blocks run one after another */
#define __launch_bounds__(...)
#define HAS_FP8_MMA 1
enum { THREADS = 256, WARP = 32 };

namespace lockstep {

struct Index {
  u32 x;
};

/* What the threads of a warp do at once: `all` gets what each of the 32 has brought. */
typedef void (*Together)(void **brought);

void together(Together all, void *mine);
void barrier();
void copy_later(void *to, const void *from);
void commit();
void await(int pending);
u32 running_sm();

Together ldmatrix(), tf32(), bf16(), fp16(), int8(), fp8(), fp64();

struct Load {
  const void *row;
  u32 *out;
};

template <class T> struct Multiply {
  T *c;
  const u32 *a;
  u32 b[2];
};

struct MultiplyDoubles {
  double *c, a, b;
};

} // namespace lockstep

extern lockstep::Index threadIdx, blockIdx, gridDim;

inline Vector load(const Vector *at) { return *at; }
inline Vector load_again(const Vector *at) { return *at; }
inline void store(Vector *at, Vector value) { *at = value; }
inline u64 add(u64 *counter, u64 more) { return (*counter += more) - more; }
inline void sync_block() { lockstep::barrier(); }
inline u32 sm_id() { return lockstep::running_sm(); }

inline void cp_async_16(Vector *to, const Vector *from) { lockstep::copy_later(to, from); }
inline void cp_async_commit() { lockstep::commit(); }
template <int PENDING> inline void cp_async_wait() { lockstep::await(PENDING); }

inline void ldmatrix_x4(u32 (&out)[4], const void *row) {
  lockstep::Load mine = {row, out};
  lockstep::together(lockstep::ldmatrix(), &mine);
}

#define MMA(unit, type)                                                                                                \
  inline void mma_##unit(type(&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {                                             \
    lockstep::Multiply<type> mine = {c, a, {b0, b1}};                                                                  \
    lockstep::together(lockstep::unit(), &mine);                                                                       \
  }
MMA(tf32, float)
MMA(bf16, float)
MMA(fp16, float)
MMA(int8, int)
MMA(fp8, float)
#undef MMA

inline void mma_fp64(double (&c)[2], double a, double b) {
  lockstep::MultiplyDoubles mine = {c, a, b};
  lockstep::together(lockstep::fp64(), &mine);
}

template <class TO, class FROM> inline TO same_bits(FROM from) {
  static_assert(sizeof(TO) == sizeof(FROM), "the same bits");
  TO to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
inline u32 bits_of(float value) { return same_bits<u32>(value); }
inline u32 bits_of(int value) { return same_bits<u32>(value); }
inline u64 bits_of(double value) { return same_bits<u64>(value); }
#endif
