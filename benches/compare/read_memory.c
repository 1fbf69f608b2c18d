/* How fast threads read memory by plain additions: a line of JSON for each size of the block.

       cc -O3 -march=native -pthread read_memory.c -o read_memory && ./read_memory THREADS REPETITIONS MEGABYTES...

   Each thread adds up its own part of the block, twice in a row, and the second time counts: a block that fits into a cache is read
   from there. */

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { LANES = 64 };

struct part {
    const uint64_t *numbers;
    size_t count;
    uint64_t sum;
};

static void *add(void *argument) {
    struct part *part = argument;
    uint64_t sums[LANES] = {0};
    for (size_t i = 0; i + LANES <= part->count; i += LANES)
        for (int lane = 0; lane < LANES; lane++)
            sums[lane] += part->numbers[i + lane];
    for (int lane = 0; lane < LANES; lane++)
        part->sum += sums[lane];
    return NULL;
}

static double read_once(const uint64_t *block, size_t count, int threads) {
    pthread_t handles[threads];
    struct part parts[threads];
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int i = 0; i < threads; i++) {
        size_t first = count * i / threads;
        parts[i] = (struct part){block + first, count * (i + 1) / threads - first, 0};
        if (pthread_create(&handles[i], NULL, add, &parts[i]))
            exit(1);
    }
    uint64_t sum = 0;
    for (int i = 0; i < threads; i++) {
        pthread_join(handles[i], NULL);
        sum += parts[i].sum;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    /* Nobody may leave the additions out. */
    if (sum == 1)
        printf(" ");
    return (end.tv_sec - start.tv_sec) + 1e-9 * (end.tv_nsec - start.tv_nsec);
}

int main(int argc, char **argv) {
    if (argc < 4)
        return 2;
    int threads = atoi(argv[1]), repetitions = atoi(argv[2]);
    for (int argument = 3; argument < argc; argument++) {
        size_t bytes = (size_t)atol(argv[argument]) * 1000000, count = bytes / sizeof(uint64_t);
        uint64_t *block = malloc(bytes);
        if (!block || threads < 1 || repetitions < 1)
            return 2;
        for (size_t i = 0; i < count; i++)
            block[i] = i * 2;
        double best = 1e9;
        read_once(block, count, threads);
        for (int i = 0; i < repetitions; i++) {
            double seconds = read_once(block, count, threads);
            best = seconds < best ? seconds : best;
        }
        printf("{\"case\": \"read %zu MB\", \"threads\": %d, \"value\": %.2f}\n", bytes / 1000000, threads, bytes / best / 1e9);
        free(block);
    }
    return 0;
}
