/* Modules and kernels. Any image that a driver would take is taken; its kernels are looked up by name in our own build
   of the same sources (host_kernels.cpp). A launch is done when the call returns, except by a GPU that hangs. */
#include "cuda_context.h"
#include "kernel_thread.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_THREADS = 1024 };

struct module {
  struct context *context;
};

__thread struct kernel_thread kernel_thread;

static const struct kernel *kernels;

void kernel_register(struct kernel *kernel) {
  kernel->next = kernels;
  kernels = kernel;
}

/* Which vector of the faulty memory an address is; false where it lies outside. */
static bool vector_of(const void *at, size_t *vector) {
  uintptr_t base = (uintptr_t)kernel_thread.faulty->words;
  *vector = ((uintptr_t)at - base) / MEMORY_VECTOR;
  return (uintptr_t)at >= base && *vector < kernel_thread.faulty->vectors;
}

void kernel_load(const void *at, void *value) {
  size_t vector;
  if (vector_of(at, &vector))
    memory_load(kernel_thread.faulty, vector, value);
  else
    memcpy(value, at, MEMORY_VECTOR);
}

void kernel_store(void *at, const void *value) {
  size_t vector;
  if (vector_of(at, &vector))
    memory_store(kernel_thread.faulty, vector, value);
  else
    memcpy(at, value, MEMORY_VECTOR);
}

/* The first bytes of what a driver loads: a fat binary (fatbinary_section.h) or a cubin, which is an ELF file. */
static bool is_image(const void *image) {
  static const unsigned char fatbin[] = {0x50, 0xed, 0x55, 0xba}, elf[] = {0x7f, 'E', 'L', 'F'};
  return image && (!memcmp(image, fatbin, sizeof fatbin) || !memcmp(image, elf, sizeof elf));
}

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  CUresult result = cuda_enter();
  if (result != CUDA_SUCCESS)
    return result;
  if (!is_image(image))
    return CUDA_ERROR_INVALID_IMAGE;
  *module = malloc(sizeof **module);
  if (!*module)
    return CUDA_ERROR_OUT_OF_MEMORY;
  (*module)->context = cuda_current;
  return CUDA_SUCCESS;
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int count, int *options, void **values) {
  (void)count, (void)options, (void)values;
  return cuModuleLoadData(module, image);
}

CUresult cuModuleUnload(CUmodule module) {
  free(module);
  return module ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* Kernels in the instructions of one generation are in no image for another. */
static bool runs_here(const struct kernel *kernel) {
  uint64_t capability;
  return !kernel->architecture || (hw_gpu_number(cuda_current->gpu, "compute_capability", &capability) &&
                                   capability / 10 == kernel->architecture / 10);
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  CUresult result = cuda_enter();
  if (result != CUDA_SUCCESS)
    return result;
  if (!module || module->context != cuda_current)
    return CUDA_ERROR_INVALID_HANDLE;
  for (const struct kernel *kernel = kernels; kernel; kernel = kernel->next)
    if (!strcmp(kernel->name, name) && runs_here(kernel)) {
      *function = kernel;
      return CUDA_SUCCESS;
    }
  return CUDA_ERROR_NOT_FOUND;
}

/* Every block of a grid, one after another. */
static CUresult run(const struct kernel *kernel, unsigned int blocks, void **arguments) {
  struct context *context = cuda_current;
  uint64_t sms;
  if (!hw_gpu_number(context->gpu, "sm_count", &sms) || !sms)
    return CUDA_ERROR_UNKNOWN;
  memory_refresh(&context->model, context->gpu);
  compute_refresh(&context->compute, context->gpu);
  kernel_thread = (struct kernel_thread){
      .grid = {blocks, 1, 1},
      .threads = {1, 1, 1},
      .faulty = context->model.faulty ? &context->model : NULL,
      .compute = &context->compute,
  };
  for (unsigned int block = 0; block < blocks; block++) {
    kernel_thread.block = (struct kernel_index){block, 0, 0};
    kernel_thread.sm = block % (unsigned int)sms;
    kernel_thread.sm_faulty = context->compute.fault != COMPUTE_RIGHT && kernel_thread.sm == context->compute.sm;
    kernel->run(arguments);
  }
  return CUDA_SUCCESS;
}

/* Whether this kernel never ends, or waits for one that does not. */
static bool hangs(void) {
  uint64_t limit;
  if (hw_gpu_number(cuda_current->gpu, "hangs_after_bytes", &limit) && hw_moved(cuda_current->gpu) >= limit)
    cuda_current->hangs = true;
  return cuda_current->hangs;
}

/* Only what our kernels need: one dimension, arguments by pointers. */
CUresult cuLaunchKernel(CUfunction function, unsigned int blocks, unsigned int blocks_y, unsigned int blocks_z,
                        unsigned int threads, unsigned int threads_y, unsigned int threads_z, unsigned int shared,
                        CUstream stream, void **arguments, void **extra) {
  (void)shared, (void)stream;
  if (!function)
    return CUDA_ERROR_INVALID_HANDLE;
  if (!blocks || !threads || threads > MAX_THREADS)
    return CUDA_ERROR_INVALID_VALUE;
  if (blocks_y != 1 || blocks_z != 1 || threads_y != 1 || threads_z != 1 || extra)
    return CUDA_ERROR_NOT_SUPPORTED;
  struct timespec start;
  CUresult result = cuda_enter();
  if (result != CUDA_SUCCESS || cuda_work_fails() || hangs())
    return result; /* what becomes of a kernel is learnt from later calls */
  clock_gettime(CLOCK_MONOTONIC, &start);
  result = run(function, blocks, arguments);
  return result == CUDA_SUCCESS ? cuda_end_work(kernel_thread.moved, &start, 1) : result;
}
