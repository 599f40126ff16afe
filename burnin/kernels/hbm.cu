/* Writes memory with data that can be recomputed from (pattern, index), and checks it: each byte is read and written
   once a step, and the GPU needs no reference copy.

   Vectors are numbered over all memory under test: `first` is the number of the first one at `memory`, so no two places
   hold the same address or random data. Memory comes in tiles of 16 KiB; a block takes a tile whole, so that one DRAM
   page is asked for by neighbours in time. `first` and all sizes are whole tiles. */
#include "device.h"

/* burnin/hbm/patterns.py has the same numbers and the same formulas. */
enum Kind : u32 { ADDRESS, RANDOM, CHECKERBOARD, WALKING, SOLID, MODULO_20 };
enum : u32 {
  TILE = 1024, /* vectors */
  BATCH = 4,   /* vectors a thread has in flight */
  /* At most 64 registers a thread: four blocks have 64 KiB in flight, an SM's share of bandwidth x latency is less. */
  BLOCKS_OF_AN_SM = 4,
};

/* `flip` is all ones for the complement. What `seed` means is the kind's own. */
struct Pattern {
  u32 kind;
  u64 seed, flip;
};

/* One vector that came back wrong; `again` is what a second read gave, before anything new was written there. */
struct Miscompare {
  u64 index;
  Vector expected, got, again;
  u32 sm, step;
};

/* In host memory: it does not share the fate of what is tested, and is there to be read when the GPU is lost. */
struct Findings {
  u64 words;     /* of 64 bits, that were wrong */
  u64 transient; /* of these, right when read again */
  u64 listed;    /* how many wanted to be in the list; it holds the first `capacity` */
  u64 capacity;
  Miscompare list[1];
};

/* One 64-bit hash for a vector of 128 bits: at 8 TB/s integer work is what bounds a sweep. Each step is a bijection, so
   no two vectors are equal; a shift by 32 is one instruction. */
DEVICE u64 scatter(u64 index, u64 seed) {
  u64 x = index * 0x9e3779b97f4a7c15u + seed;
  x ^= x >> 32;
  x *= 0xd6e8feb86659fd93u;
  return x ^ (x >> 32);
}

DEVICE u64 rotate_left(u64 x, u32 by) { return (x << by) | (x >> (64 - by)); }

/* The 64-bit word's own number. */
DEVICE Vector address(u64 index) { return Vector{2 * index, 2 * index + 1}; }

DEVICE Vector random(u64 index, u64 seed) {
  u64 x = scatter(index, seed);
  return Vector{x, ~rotate_left(x, 23)};
}

/* 1010.. and 0101.., changing every 2^seed vectors. */
DEVICE Vector checkerboard(u64 index, u64 seed) {
  u64 x = 0xaaaaaaaaaaaaaaaau ^ (0 - (u64)(((u32)index >> (u32)seed) & 1));
  return Vector{x, x};
}

/* One bit of the word; the next word has the next bit. */
DEVICE Vector walking(u64 index, u64 seed) {
  u64 x = 1ull << ((u32)(2 * index + seed) & 63);
  return Vector{x, rotate_left(x, 1)};
}

/* The low 5 bits say which word of 20 holds the data, made of the rest; the others hold its complement. */
DEVICE Vector modulo_20(u64 index, u64 seed) {
  u64 data = (seed >> 5) * 0x9e3779b97f4a7c15u;
  u32 word = ((u32)(index >> 32) * 6 + (u32)index % 10) % 10 * 2, chosen = (u32)seed & 31; /* 2^32 % 10 = 6 */
  return Vector{word == chosen ? data : ~data, word + 1 == chosen ? data : ~data};
}

/* A thread's vectors of a tile, which begins at vector `tile_first`. Down is the mirror image of up. */
struct Walk {
  u64 tile_first;
  u32 start, mirror;
};

DEVICE u32 place(const Walk &walk, u32 k) { return (walk.start + k * THREADS) ^ walk.mirror; }

/* Gives each vector of the batch its value. Which pattern it is, is asked once, and all threads take the same way. */
template <class Take> DEVICE void each(const Pattern &pattern, u64 first, const Walk &walk, Take take) {
  auto batch = [&](auto value_at) {
    for (u32 k = 0; k < BATCH; k++) {
      Vector v = value_at((first + walk.tile_first) | place(walk, k));
      take(k, Vector{v.x ^ pattern.flip, v.y ^ pattern.flip});
    }
  };
  u64 seed = pattern.seed;
  switch (pattern.kind) {
  case ADDRESS: return batch([](u64 index) { return address(index); });
  case RANDOM: return batch([seed](u64 index) { return random(index, seed); });
  case CHECKERBOARD: return batch([seed](u64 index) { return checkerboard(index, seed); });
  case WALKING: return batch([seed](u64 index) { return walking(index, seed); });
  case MODULO_20: return batch([seed](u64 index) { return modulo_20(index, seed); });
  default: return batch([](u64) { return Vector{0, 0}; });
  }
}

/* What a thread has found. It is added up once, at the end: a memory that is wrong everywhere takes no longer. */
struct Tally {
  Findings *findings;
  u32 step;
  bool full;
  u64 words, transient;
};

/* The same once more, for one vector. */
RARE Vector expected_at(u32 kind, u64 seed, u64 flip, u64 index) {
  Vector v{0, 0};
  switch (kind) {
  case ADDRESS: v = address(index); break;
  case RANDOM: v = random(index, seed); break;
  case CHECKERBOARD: v = checkerboard(index, seed); break;
  case WALKING: v = walking(index, seed); break;
  case MODULO_20: v = modulo_20(index, seed); break;
  }
  return Vector{v.x ^ flip, v.y ^ flip};
}

DEVICE void list(Tally &tally, u64 index, Vector expected, Vector got, Vector again) {
  if (tally.full)
    return;
  u64 slot = add(&tally.findings->listed, 1);
  if (slot < tally.findings->capacity)
    tally.findings->list[slot] = Miscompare{index, expected, got, again, sm_id(), tally.step};
  else
    tally.full = true;
}

DEVICE void note(Tally &tally, const Vector *at, u64 index, Vector expected, Vector got) {
  if (expected.x == got.x && expected.y == got.y)
    return;
  Vector again = load_again(at);
  tally.words += (expected.x != got.x) + (expected.y != got.y);
  tally.transient += (expected.x != got.x && expected.x == again.x) + (expected.y != got.y && expected.y == again.y);
  list(tally, index, expected, got, again);
}

/* Check, then write; either may be left out. `held_first` numbers what is checked: data that was moved has kept its
   numbers. */
template <bool CHECK, bool WRITE>
DEVICE void sweep(Vector *memory, u64 tiles, u32 down, u64 held_first, const Pattern &held, u64 first,
                  const Pattern &next, Tally &tally) {
  for (u64 turn = blockIdx.x; turn < tiles; turn += gridDim.x) {
    u64 tile_first = (down ? tiles - 1 - turn : turn) * TILE;
    Vector *tile = memory + tile_first;
    for (u32 start = threadIdx.x; start < TILE; start += BATCH * THREADS) {
      Walk walk{tile_first, start, down ? TILE - 1 : 0};
      if (CHECK) {
        Vector got[BATCH];
        for (u32 k = 0; k < BATCH; k++)
          got[k] = load(tile + place(walk, k));
        u64 differs = 0;
        each(held, held_first, walk, [&](u32 k, Vector want) { differs |= (got[k].x ^ want.x) | (got[k].y ^ want.y); });
        if (differs) {
          u64 before = tally.words;
          for (u32 k = 0; k < BATCH; k++) {
            u64 number = tile_first | place(walk, k);
            Vector want = expected_at(held.kind, held.seed, held.flip, held_first + number);
            note(tally, memory + number, first + number, want, got[k]);
          }
          if (tally.words == before) { /* right, when calculated again: not the memory failed but this SM */
            tally.words++, tally.transient++;
            list(tally, first + (tile_first | place(walk, 0)), got[0], got[0], got[0]);
          }
        }
      }
      if (WRITE)
        each(next, first, walk, [&](u32 k, Vector value) { store(tile + place(walk, k), value); });
    }
  }
  if (CHECK && tally.words) {
    add(&tally.findings->words, tally.words);
    add(&tally.findings->transient, tally.transient);
  }
}

KERNEL hbm_write(Vector *memory, u64 tiles, u32 down, u64 first, u32 kind, u64 seed, u64 flip) {
  Pattern next{kind, seed, flip};
  Tally none{nullptr, 0, true, 0, 0};
  sweep<false, true>(memory, tiles, down, 0, next, first, next, none);
}

KERNEL __launch_bounds__(THREADS, BLOCKS_OF_AN_SM)
hbm_verify(Vector *memory, u64 tiles, u32 down, u64 first, u64 held_first, u32 held_kind, u64 held_seed, u64 held_flip,
           Findings *findings, u32 step) {
  Pattern held{held_kind, held_seed, held_flip};
  Tally tally{findings, step, false, 0, 0};
  sweep<true, false>(memory, tiles, down, held_first, held, first, held, tally);
}

KERNEL __launch_bounds__(THREADS, BLOCKS_OF_AN_SM)
hbm_verify_write(Vector *memory, u64 tiles, u32 down, u64 first, u64 held_first, u32 held_kind, u64 held_seed,
                 u64 held_flip, u32 kind, u64 seed, u64 flip, Findings *findings, u32 step) {
  Pattern held{held_kind, held_seed, held_flip}, next{kind, seed, flip};
  Tally tally{findings, step, false, 0, 0};
  sweep<true, true>(memory, tiles, down, held_first, held, first, next, tally);
}

/* Exchanges two regions: everything moves, reads and writes are mixed, and each byte is read and written once. */
KERNEL hbm_move(Vector *one, Vector *other, u64 tiles, u32 down) {
  for (u64 turn = blockIdx.x; turn < tiles; turn += gridDim.x)
    for (u32 start = threadIdx.x; start < TILE; start += BATCH * THREADS) {
      Walk walk{(down ? tiles - 1 - turn : turn) * TILE, start, down ? TILE - 1 : 0};
      Vector left[BATCH], right[BATCH];
      for (u32 k = 0; k < BATCH; k++) {
        left[k] = load(one + (walk.tile_first | place(walk, k)));
        right[k] = load(other + (walk.tile_first | place(walk, k)));
      }
      for (u32 k = 0; k < BATCH; k++) {
        store(one + (walk.tile_first | place(walk, k)), right[k]);
        store(other + (walk.tile_first | place(walk, k)), left[k]);
      }
    }
}

/* Opens many rows, again and again: one access to a row, then to one far away. `rows` (a power of two) lie
   `row_stride` vectors apart; each turn takes another 32-byte sector of a row of 1 KiB, so that with rows * 1 KiB over
   the size of L2 every access goes to the memory. How addresses lie in banks is not public: a screen, no proof. */
KERNEL hbm_activate(const Vector *memory, u64 rows, u64 row_stride, u64 accesses, u64 *sink) {
  u64 seen = 0, threads = (u64)gridDim.x * THREADS;
  for (u64 n = (u64)blockIdx.x * THREADS + threadIdx.x; n < accesses; n += BATCH * threads) {
    Vector got[BATCH];
    for (u32 k = 0; k < BATCH; k++) {
      u64 turn = n + k * threads;
      /* of the product's high half: its low bits repeat when the grid is a multiple of the rows */
      u64 row = ((turn * 0x9e3779b97f4a7c15u) >> 32) * rows >> 32;
      got[k] = load_again(memory + row * row_stride + ((turn / rows) & 31) * 2);
    }
    for (u32 k = 0; k < BATCH; k++)
      seen |= got[k].x ^ got[k].y;
  }
  if (seen == 0x0123456789abcdefu) /* never, but the compiler does not know */
    *sink = seen;
}

/* Keeps the die hot without the memory: multiply-adds in registers. */
KERNEL hbm_warm(u32 turns, u64 *sink) {
  float sum[8];
  for (u32 k = 0; k < 8; k++)
    sum[k] = (float)(threadIdx.x + k);
  for (u32 turn = 0; turn < turns; turn++)
    for (u32 k = 0; k < 8; k++)
      sum[k] = sum[k] * 0.999999f + 1.0f;
  float all = 0;
  for (u32 k = 0; k < 8; k++)
    all += sum[k];
  if (all == -1.0f) /* never, but the compiler does not know */
    *sink = 1;
}
