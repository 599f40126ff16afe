/* The GPU's thread that the calling thread of the host is right now, and the kernels it can be. */
#ifndef RACKPROOF_KERNEL_THREAD_H
#define RACKPROOF_KERNEL_THREAD_H

#include "compute_faults.h"
#include "memory_model.h"

#ifdef __cplusplus
extern "C" {
#endif

struct kernel_index {
  unsigned int x, y, z;
};

struct kernel_thread {
  struct kernel_index block, grid, thread, threads;
  unsigned int sm;
  bool sm_faulty;              /* this SM's results go through `compute` */
  uint64_t moved;              /* bytes loaded and stored in this launch */
  struct memory_model *faulty; /* NULL where loads and stores need no model */
  struct compute_faults *compute;
};

/* initial-exec: reached without a call; the few bytes fit what glibc keeps free for libraries that are loaded late. */
extern __thread struct kernel_thread kernel_thread __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* A load and a store of kernel_thread.faulty; memory that is not the GPU's (pinned, say) has no faults. */
void kernel_load(const void *at, void *value);
void kernel_store(void *at, const void *value);

/* A kernel by its name. `run` calls it with the values that `arguments` points at, as cuLaunchKernel gets them;
   `architecture` is that of the only GPUs that have it (90 for compute capability 9.0), or 0. */
struct kernel {
  const char *name;
  void (*run)(void **arguments);
  unsigned int architecture;
  const struct kernel *next;
};

/* Adds to the kernels that cuModuleGetFunction knows; called before main. */
void kernel_register(struct kernel *kernel);

#ifdef __cplusplus
}
#endif

#endif
