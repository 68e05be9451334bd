/* The three loop nests of test_cachegrind.py: N, TILE and real come from the command line of the compiler.
   volatile: the program makes the accesses that are written here, all of them and in this order.
   A line touches one array at most, so that cachegrind's counts by line are counts by array. */
#include <stdint.h>
#include <stdio.h>

#define PAGE 4096

static volatile real a[N * N] __attribute__((aligned(PAGE)));
static volatile real b[N * N] __attribute__((aligned(PAGE)));
static volatile real c[N * N] __attribute__((aligned(PAGE)));

static long smaller(long x, long y) { return x < y ? x : y; }

__attribute__((noinline)) static void naive(void) {
  for (long i = 0; i < N; i++)
    for (long j = 0; j < N; j++) {
      real sum = 0;
      for (long k = 0; k < N; k++) {
        real left = a[i * N + k]; /* naive A read */
        real right = b[k * N + j]; /* naive B read */
        sum += left * right;
      }
      c[i * N + j] = sum; /* naive C write */
    }
}

__attribute__((noinline)) static void reordered(void) {
  for (long i = 0; i < N; i++)
    for (long k = 0; k < N; k++) {
      real left = a[i * N + k]; /* reordered A read */
      for (long j = 0; j < N; j++) {
        real right = b[k * N + j]; /* reordered B read */
        real sum = c[i * N + j]; /* reordered C read */
        sum += left * right;
        c[i * N + j] = sum; /* reordered C write */
      }
    }
}

__attribute__((noinline)) static void tiled(void) {
  for (long i0 = 0; i0 < N; i0 += TILE)
    for (long k0 = 0; k0 < N; k0 += TILE)
      for (long j0 = 0; j0 < N; j0 += TILE)
        for (long i = i0; i < smaller(i0 + TILE, N); i++)
          for (long k = k0; k < smaller(k0 + TILE, N); k++) {
            real left = a[i * N + k]; /* tiled A read */
            for (long j = j0; j < smaller(j0 + TILE, N); j++) {
              real right = b[k * N + j]; /* tiled B read */
              real sum = c[i * N + j]; /* tiled C read */
              sum += left * right;
              c[i * N + j] = sum; /* tiled C write */
            }
          }
}

int main(int argc, char **argv) {
  void (*nest[])(void) = {naive, reordered, tiled};
  printf("%ju %ju %ju\n", (uintmax_t)(uintptr_t)a, (uintmax_t)(uintptr_t)b, (uintmax_t)(uintptr_t)c);
  nest[argv[argc - 1][0] - '0'](); /* one nest in a run: it begins with none of its data in a cache */
  return 0;
}
