/* One source of burnin/kernels, built for the host. Compiled once for each, with KERNEL_SOURCE its path and KERNELS(K)
   the names of the kernels in it (device_libraries.py asks the preprocessor for them); KERNEL_ARCHITECTURE is that of
   the only GPUs that have them, 90 for sm_90, or 0. */
#include "host_kernels.h"

namespace { /* two sources may have helpers of one name */

#include KERNEL_SOURCE

template <int... I> struct Positions {};
template <int N, int... I> struct Count : Count<N - 1, N - 1, I...> {};
template <int... I> struct Count<0, I...> {
  using Type = Positions<I...>;
};

template <class T> struct Value {
  using Type = T;
};
template <class T> struct Value<T &> {
  using Type = T;
};

template <class... A, int... I> void call(void (*kernel)(A...), void **arguments, Positions<I...>) {
  (void)arguments; /* a kernel may have none */
  kernel(*static_cast<typename Value<A>::Type *>(arguments[I])...);
}

template <class... A> void unpack(void (*kernel)(A...), void **arguments) {
  call(kernel, arguments, typename Count<sizeof...(A)>::Type());
}

#define ENTRY(name) {#name, [](void **arguments) { unpack(name, arguments); }, KERNEL_ARCHITECTURE, nullptr},
struct kernel table[] = {KERNELS(ENTRY)};

__attribute__((constructor)) void add_table() {
  for (struct kernel &kernel : table)
    kernel_register(&kernel);
}

} // namespace
