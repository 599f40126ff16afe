/* A GPU's memory as kernels and copies see it: vectors of 16 bytes that may be faulty. The faults are read from the
   state (keys `memory.*`, toolkit/virtual/hardware.py) before an operation, and act on each load and store in it.

   Without a fault nobody calls memory_load and memory_store: whoever moves data looks at `faulty` first. */
#ifndef RACKPROOF_MEMORY_MODEL_H
#define RACKPROOF_MEMORY_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MEMORY_VECTOR = 16 /* bytes */, MEMORY_LINE = 8 /* vectors */, MEMORY_ROW = 64 /* vectors */ };

/* One bit of memory; `vector` is SIZE_MAX where there is none. */
struct memory_cell {
  size_t vector;
  uint64_t mask[2];
};

struct memory_model {
  uint64_t *words;
  size_t vectors;
  uint64_t generation; /* of the state the faults were read from */
  bool faulty;

  struct memory_cell stuck; /* reads as 1 */

  uint64_t address_line; /* a bit of the vector's index that is 0 on every access from line_from up to line_to */
  size_t line_from, line_to;

  struct memory_cell flip; /* wrong on the way out in every flip_every-th load; the memory stays right */
  uint64_t flip_every, flip_count;

  struct memory_cell aggressor, victim; /* 0 -> 1 of the one inverts the other */

  size_t lost_line; /* every lost_every-th store to this line does not arrive */
  uint64_t lost_every, lost_count;

  struct memory_cell weak; /* falls to 0 when it was not written for so long */
  double weak_seconds, weak_written;

  struct memory_cell disturbed; /* inverted when its neighbour rows were opened so often since it was written */
  uint64_t disturb_after, activations;
  size_t open_row;
};

/* Reads the faults again if the state has changed since. */
void memory_refresh(struct memory_model *model, int gpu);

/* One vector of a faulty memory. */
void memory_load(struct memory_model *model, size_t vector, uint64_t out[2]);
void memory_store(struct memory_model *model, size_t vector, const uint64_t in[2]);

/* Any bytes of any memory, as a copy moves them. */
void memory_read(struct memory_model *model, size_t at, void *out, size_t bytes);
void memory_write(struct memory_model *model, size_t at, const void *from, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
