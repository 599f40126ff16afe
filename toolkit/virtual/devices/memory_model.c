#include "memory_model.h"

#include "hardware.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static bool fault_number(int gpu, const char *fault, const char *key, uint64_t *out) {
  char full[64];
  snprintf(full, sizeof full, "memory.%s_%s", fault, key);
  return hw_gpu_number(gpu, full, out);
}

/* The bit that `memory.FAULT_vector` and `memory.FAULT_bit` name. */
static bool read_cell(const struct memory_model *model, int gpu, const char *fault, struct memory_cell *cell) {
  uint64_t vector, bit;
  *cell = (struct memory_cell){.vector = SIZE_MAX};
  if (!fault_number(gpu, fault, "vector", &vector) || !fault_number(gpu, fault, "bit", &bit) ||
      vector >= model->vectors || bit >= 8 * MEMORY_VECTOR)
    return false;
  cell->vector = (size_t)vector;
  cell->mask[bit / 64] = UINT64_C(1) << bit % 64;
  return true;
}

/* `memory.address_line_bit`, `_from`, `_to`. */
static bool read_address_line(struct memory_model *model, int gpu) {
  uint64_t bit, from, to;
  model->address_line = 0;
  if (!fault_number(gpu, "address_line", "bit", &bit) || !fault_number(gpu, "address_line", "from", &from) ||
      !fault_number(gpu, "address_line", "to", &to) || bit >= 64)
    return false;
  model->address_line = UINT64_C(1) << bit;
  model->line_from = (size_t)from;
  model->line_to = (size_t)to;
  return true;
}

/* `memory.lost_line`, `memory.lost_every`. */
static bool read_lost(struct memory_model *model, int gpu) {
  uint64_t line;
  model->lost_count = 0;
  model->lost_line = SIZE_MAX;
  if (!fault_number(gpu, "lost", "line", &line) || !fault_number(gpu, "lost", "every", &model->lost_every) ||
      !model->lost_every)
    return false;
  model->lost_line = (size_t)line;
  return true;
}

static bool read_counted(struct memory_model *model, int gpu, const char *fault, const char *limit,
                         struct memory_cell *cell, uint64_t *out) {
  if (read_cell(model, gpu, fault, cell) && fault_number(gpu, fault, limit, out) && *out)
    return true;
  cell->vector = SIZE_MAX;
  return false;
}

void memory_refresh(struct memory_model *model, int gpu) {
  uint64_t generation = hw_generation();
  if (generation == model->generation)
    return;
  model->generation = generation;
  bool faulty = read_cell(model, gpu, "stuck", &model->stuck);
  faulty |= read_address_line(model, gpu);
  faulty |= read_counted(model, gpu, "flip", "every", &model->flip, &model->flip_every);
  model->flip_count = 0;
  if (read_cell(model, gpu, "aggressor", &model->aggressor) && read_cell(model, gpu, "victim", &model->victim))
    faulty = true;
  else
    model->aggressor.vector = SIZE_MAX;
  faulty |= read_lost(model, gpu);
  uint64_t milliseconds;
  faulty |= read_counted(model, gpu, "retention", "ms", &model->weak, &milliseconds);
  if (model->weak.vector != SIZE_MAX)
    model->weak_seconds = (double)milliseconds / 1e3;
  model->weak_written = seconds_now();
  faulty |= read_counted(model, gpu, "disturb", "after", &model->disturbed, &model->disturb_after);
  model->activations = 0;
  model->open_row = SIZE_MAX;
  model->faulty = faulty;
}

/* The vector that is really accessed. */
static size_t decoded(const struct memory_model *model, size_t vector) {
  bool on_line = model->address_line && vector >= model->line_from && vector < model->line_to;
  return on_line ? vector & ~(size_t)model->address_line : vector;
}

static void invert(struct memory_model *model, const struct memory_cell *cell) {
  model->words[2 * cell->vector] ^= cell->mask[0];
  model->words[2 * cell->vector + 1] ^= cell->mask[1];
}

/* Opens the row of a vector. All memory is one bank: two rows that take turns open each other's every time. */
static void activate(struct memory_model *model, size_t vector) {
  size_t row = vector / MEMORY_ROW;
  if (model->disturbed.vector == SIZE_MAX || row == model->open_row)
    return;
  model->open_row = row;
  size_t victim = model->disturbed.vector / MEMORY_ROW;
  if ((row + 1 == victim || row == victim + 1) && ++model->activations == model->disturb_after)
    invert(model, &model->disturbed);
}

static void decay(struct memory_model *model) {
  if (seconds_now() - model->weak_written < model->weak_seconds)
    return;
  model->words[2 * model->weak.vector] &= ~model->weak.mask[0];
  model->words[2 * model->weak.vector + 1] &= ~model->weak.mask[1];
}

void memory_load(struct memory_model *model, size_t vector, uint64_t out[2]) {
  vector = decoded(model, vector);
  activate(model, vector);
  if (vector == model->weak.vector)
    decay(model);
  memcpy(out, model->words + 2 * vector, MEMORY_VECTOR);
  if (vector == model->stuck.vector)
    for (int i = 0; i < 2; i++)
      out[i] |= model->stuck.mask[i];
  if (vector == model->flip.vector && ++model->flip_count % model->flip_every == 0)
    for (int i = 0; i < 2; i++)
      out[i] ^= model->flip.mask[i];
}

void memory_store(struct memory_model *model, size_t vector, const uint64_t in[2]) {
  vector = decoded(model, vector);
  activate(model, vector);
  if (vector / MEMORY_LINE == model->lost_line && ++model->lost_count % model->lost_every == 0)
    return;
  uint64_t *words = model->words + 2 * vector;
  const struct memory_cell *aggressor = &model->aggressor;
  bool rises = vector == aggressor->vector &&
               ((~words[0] & in[0] & aggressor->mask[0]) || (~words[1] & in[1] & aggressor->mask[1]));
  memcpy(words, in, MEMORY_VECTOR);
  if (rises)
    invert(model, &model->victim);
  if (vector == model->weak.vector)
    model->weak_written = seconds_now();
  if (vector == model->disturbed.vector)
    model->activations = 0;
}

/* The part of a vector that lies in a range of bytes: its first byte in the vector, and how many. */
static size_t part_of(size_t at, size_t bytes, size_t *count) {
  size_t first = at % MEMORY_VECTOR;
  *count = MEMORY_VECTOR - first < bytes ? MEMORY_VECTOR - first : bytes;
  return first;
}

void memory_read(struct memory_model *model, size_t at, void *out, size_t bytes) {
  if (!model->faulty) {
    memcpy(out, (const char *)model->words + at, bytes);
    return;
  }
  for (char *to = out; bytes;) {
    uint64_t vector[2];
    size_t count, first = part_of(at, bytes, &count);
    memory_load(model, at / MEMORY_VECTOR, vector);
    memcpy(to, (const char *)vector + first, count);
    at += count, to += count, bytes -= count;
  }
}

void memory_write(struct memory_model *model, size_t at, const void *source, size_t bytes) {
  if (!model->faulty) {
    memcpy((char *)model->words + at, source, bytes);
    return;
  }
  for (const char *from = source; bytes;) {
    uint64_t vector[2];
    size_t count, first = part_of(at, bytes, &count);
    memcpy(vector, model->words + 2 * decoded(model, at / MEMORY_VECTOR), MEMORY_VECTOR);
    memcpy((char *)vector + first, from, count);
    memory_store(model, at / MEMORY_VECTOR, vector);
    at += count, from += count, bytes -= count;
  }
}
