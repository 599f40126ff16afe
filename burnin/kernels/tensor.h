/* The instructions of the tensor core path, one function each. PTX ISA 9.0: "Warp-level matrix instructions",
   "Data movement: cp.async". `lane` layouts are of the PTX ISA's figures for mma.m16n8k* and mma.m8n8k4. */
#ifndef BURNIN_TENSOR_H
#define BURNIN_TENSOR_H
#include "device.h"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
#define HAS_FP8_MMA 1 /* before it, mma.sync of FP8 is made of FP16 instructions and tests nothing new */
#endif

DEVICE u32 shared_address(const void *at) { return (u32)__cvta_generic_to_shared(at); }

/* 16 bytes into shared memory, past L1 and past the registers, whenever they come. */
DEVICE void cp_async_16(Vector *to, const Vector *from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
}

DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/* Until at most PENDING of this thread's groups are under way. */
template <int PENDING> DEVICE void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* Four 8 x 16 byte matrices: lane l gives the address of row l % 8 of matrix l / 8, and gets of matrix i the bytes
   4 (l % 4) .. of row l / 4 as out[i]. */
DEVICE void ldmatrix_x4(u32 (&out)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

/* C += A B for 16 rows, 8 columns and 32 bytes of each row. */
#define MMA(name, type, constraint, instruction)                                                                       \
  DEVICE void name(type(&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {                                                   \
    asm volatile(instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                        \
                 : constraint(c[0]), constraint(c[1]), constraint(c[2]), constraint(c[3])                              \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                      \
  }
MMA(mma_tf32, float, "+f", "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32")
MMA(mma_bf16, float, "+f", "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32")
MMA(mma_fp16, float, "+f", "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32")
MMA(mma_int8, int, "+r", "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32")
#ifdef HAS_FP8_MMA
MMA(mma_fp8, float, "+f", "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32")
#endif
#undef MMA

/* C += A B for 8 rows, 8 columns and 4 doubles of each row. */
DEVICE void mma_fp64(double (&c)[2], double a, double b) {
  asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
               : "+d"(c[0]), "+d"(c[1])
               : "d"(a), "d"(b));
}

DEVICE u32 bits_of(float value) { return __float_as_uint(value); }
DEVICE u32 bits_of(int value) { return (u32)value; }
DEVICE u64 bits_of(double value) { return (u64)__double_as_longlong(value); }
#endif
