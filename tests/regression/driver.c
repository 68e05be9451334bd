/* Call one compiled kernel once, on fixed numbers, and print the sum of its result. KERNEL is the name of its symbol. */
#include <stdio.h>

#define SIZE (1 << 14)

extern void kernel(float *a, float *b, float *c) __asm__(KERNEL);

static _Alignas(64) float a[SIZE], b[SIZE], c[SIZE];

int main(void) {
    for (int i = 0; i < SIZE; i++) {
        a[i] = (float)(i * 37 % 101) / 50 - 1;
        b[i] = (float)(i * 53 % 89) / 44 - 1;
    }
    kernel(a, b, c);
    double sum = 0;
    for (int i = 0; i < SIZE; i++) sum += c[i] * (i % 7 + 1);
    printf("%.9g\n", sum);
    return 0;
}
