/* The threads of a block as fibers, and what they do together. */
#include "fibers.h"

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <numeric>
#include <ucontext.h>
#include <vector>

lockstep::Index threadIdx, blockIdx, gridDim;

namespace lockstep {
namespace {

enum { STACK_BYTES = 128 * 1024 };
enum class State { READY, IN_WARP, AT_BARRIER, ENDED };

struct Copy {
  void *to;
  const void *from;
};

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(STACK_BYTES);
  State state;
  Together doing;
  void *brought;
  std::vector<Copy> open;                /* not committed yet */
  std::deque<std::vector<Copy>> pending; /* groups, oldest first */
};

Fiber fibers[THREADS];
ucontext_t scheduler;
std::vector<u32> order(THREADS);
std::function<void()> body;
Timing timing;
u32 sm;

[[noreturn]] void fail(const char *what) {
  std::fprintf(stderr, "lockstep: block %u, thread %u: %s\n", blockIdx.x, threadIdx.x, what);
  std::abort();
}

Fiber &self() { return fibers[threadIdx.x]; }

void pause(State why) {
  self().state = why;
  swapcontext(&self().context, &scheduler);
}

void run_body() {
  body();
  for (auto &group : self().pending)
    if (!group.empty())
      fail("ended with copies under way");
  self().state = State::ENDED;
}

void perform(const std::vector<Copy> &group) {
  for (const Copy &copy : group)
    std::memcpy(copy.to, copy.from, sizeof(Vector));
}

bool all_are(State state) {
  for (const Fiber &fiber : fibers)
    if (fiber.state != state)
      return false;
  return true;
}

/* Runs every ready thread once. False when none was. */
bool pass() {
  bool any = false;
  for (u32 number : order)
    if (fibers[number].state == State::READY) {
      threadIdx.x = number;
      any = true;
      swapcontext(&scheduler, &fibers[number].context);
    }
  return any;
}

void prepare(Fiber &fiber) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.data();
  fiber.context.uc_stack.ss_size = fiber.stack.size();
  fiber.context.uc_link = &scheduler;
  fiber.state = State::READY;
  fiber.open.clear(), fiber.pending.clear();
  makecontext(&fiber.context, run_body, 0);
}

void run_block() {
  for (Fiber &fiber : fibers)
    prepare(fiber);
  while (!all_are(State::ENDED)) {
    if (pass())
      continue;
    if (!all_are(State::AT_BARRIER))
      fail("waits for a thread that does not come");
    for (Fiber &fiber : fibers)
      fiber.state = State::READY;
  }
}

} // namespace

void together(Together all, void *mine) {
  const u32 first = threadIdx.x / WARP * WARP;
  void *brought[WARP];
  self().doing = all, self().brought = mine, self().state = State::IN_WARP;
  for (u32 lane = 0; lane < WARP; lane++) {
    if (fibers[first + lane].state != State::IN_WARP)
      return pause(State::IN_WARP);
    if (fibers[first + lane].doing != all)
      fail("its warp does something else");
    brought[lane] = fibers[first + lane].brought;
  }
  all(brought);
  for (u32 lane = 0; lane < WARP; lane++)
    fibers[first + lane].state = State::READY;
}

void barrier() { pause(State::AT_BARRIER); }

void copy_later(void *to, const void *from) {
  if ((uintptr_t)to % sizeof(Vector) || (uintptr_t)from % sizeof(Vector))
    fail("cp.async of what is not aligned");
  if (timing == Timing::AT_ONCE) {
    std::memcpy(to, from, sizeof(Vector));
    return;
  }
  std::memset(to, 0xFF, sizeof(Vector));
  self().open.push_back({to, from});
}

void commit() {
  self().pending.push_back(self().open);
  self().open.clear();
}

void await(int pending) {
  while ((int)self().pending.size() > pending) {
    perform(self().pending.front());
    self().pending.pop_front();
  }
}

u32 running_sm() { return sm; }

void launch(u32 blocks, u32 sms, Timing when, u32 seed, std::function<void()> kernel) {
  body = kernel, timing = when, gridDim.x = blocks;
  std::iota(order.begin(), order.end(), 0);
  for (u32 i = THREADS - 1; seed && i > 0; i--) { /* Fisher and Yates, by a linear congruential generator */
    seed = seed * 1664525u + 1013904223u;
    std::swap(order[i], order[(seed >> 8) % (i + 1)]);
  }
  for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) {
    sm = blockIdx.x % sms;
    run_block();
  }
}

} // namespace lockstep
