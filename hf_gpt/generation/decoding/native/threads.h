/* A pool of threads that share the pieces of a job.
 *
 * The caller publishes a job as tickets, one for each thread. A ticket holds the first and last piece left of a share
 * in one atomic word, so one addition takes a piece. A thread takes its own pieces in order, for prefetching, then
 * those of others. The caller works too, and waits only for pieces that were taken: a thread that does not run delays
 * nothing. Idle threads spin for some microseconds, which covers the gap between two jobs of a step, and then sleep. */
#ifndef HF_GPT_THREADS_H
#define HF_GPT_THREADS_H

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>

#define MOST_THREADS 64
#define NEXT 0xffffffffu
#define SPINS 4000

/* Pieces [piece] of a job that `context` describes. */
typedef void (*Job)(void *context, int piece);

/* In its own cache line. */
typedef struct {
    _Alignas(64) _Atomic uint64_t ticket; /* end << 32 | next */
} Share;

static struct {
    pthread_mutex_t in_use, lock;
    pthread_cond_t wake;
    int workers;      /* threads beside the caller */
    atomic_int limit; /* how many of them may take part now */
    atomic_int sleepers;
    atomic_int done;
    Job job;
    void *context;
    Share shares[MOST_THREADS]; /* the caller's, then the workers' */
} pool = {.in_use = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static inline void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int has_pieces(uint64_t ticket) { return (ticket & NEXT) < ticket >> 32; }

static int is_piece_left(int threads) {
    for (int share = 0; share < threads; share++)
        if (has_pieces(atomic_load(&pool.shares[share].ticket))) return 1;
    return 0;
}

/* Takes a piece, first of the thread's own share, and does it; 0 if there is none. */
static int take_piece(int own, int threads) {
    for (int i = 0; i < threads; i++) {
        _Atomic uint64_t *ticket_at = &pool.shares[own + i < threads ? own + i : own + i - threads].ticket;
        if (!has_pieces(atomic_load_explicit(ticket_at, memory_order_relaxed))) continue;
        uint64_t ticket = atomic_fetch_add_explicit(ticket_at, 1, memory_order_acq_rel);
        if (!has_pieces(ticket)) continue;
        /* The job cannot end before this piece is done. */
        pool.job(pool.context, (int)(ticket & NEXT));
        atomic_fetch_add_explicit(&pool.done, 1, memory_order_release);
        return 1;
    }
    return 0;
}

static void *worker(void *number) {
    int own = (int)(intptr_t)number + 1, spins = 0;
    for (;;) {
        int threads = atomic_load_explicit(&pool.limit, memory_order_relaxed) + 1;
        if (own < threads && take_piece(own, threads)) {
            spins = 0;
        } else if (spins++ < SPINS) {
            pause_briefly();
        } else {
            pthread_mutex_lock(&pool.lock);
            /* Either the caller sees the sleeper, or the sleeper the ticket. */
            atomic_fetch_add(&pool.sleepers, 1);
            threads = atomic_load(&pool.limit) + 1;
            if (own >= threads || !is_piece_left(threads)) pthread_cond_wait(&pool.wake, &pool.lock);
            atomic_fetch_sub(&pool.sleepers, 1);
            pthread_mutex_unlock(&pool.lock);
            spins = 0;
        }
    }
    return NULL;
}

/* A child of fork has none of the threads. */
static void forget_threads(void) {
    pthread_mutex_init(&pool.in_use, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pool.workers = 0;
    atomic_store(&pool.sleepers, 0);
    for (int share = 0; share < MOST_THREADS; share++) atomic_store(&pool.shares[share].ticket, 0);
}

static void start_workers(int wanted) {
    static int watches_fork = 0;
    if (!watches_fork) watches_fork = pthread_atfork(NULL, NULL, forget_threads) == 0;
    sigset_t all, before;
    sigfillset(&all);
    /* Signals go to Python's threads. */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (; pool.workers < wanted; pool.workers++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker, (void *)(intptr_t)pool.workers)) break;
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Reserves the pool; returns the number of threads, 1 while another caller has it. */
static int enter_pool(int threads) {
    threads = threads > MOST_THREADS ? MOST_THREADS : threads;
    if (threads <= 1 || pthread_mutex_trylock(&pool.in_use)) return 1;
    start_workers(threads - 1);
    atomic_store(&pool.limit, threads - 1);
    return threads;
}

static void leave_pool(int threads) {
    if (threads > 1) pthread_mutex_unlock(&pool.in_use);
}

/* Does all pieces of a job; `threads` as `enter_pool` gave it. */
static void run_job(int threads, Job job, void *context, int pieces) {
    if (threads <= 1 || pieces <= 1) {
        for (int piece = 0; piece < pieces; piece++) job(context, piece);
        return;
    }
    pool.job = job;
    pool.context = context;
    atomic_store_explicit(&pool.done, 0, memory_order_relaxed);
    for (int64_t share = 0; share < threads; share++) {
        uint64_t begin = (uint64_t)(share * pieces / threads), end = (uint64_t)((share + 1) * pieces / threads);
        atomic_store(&pool.shares[share].ticket, end << 32 | begin);
    }
    if (atomic_load(&pool.sleepers) > 0) {
        pthread_mutex_lock(&pool.lock);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.lock);
    }
    while (take_piece(0, threads)) {}
    for (int spins = 0; atomic_load_explicit(&pool.done, memory_order_acquire) < pieces; spins++) {
        if (spins < SPINS) pause_briefly();
        else sched_yield();
    }
}

/* Cuts `items` into pieces of `size`, enough that late threads find some left. */
static int pieces_of(int64_t items, int threads, int64_t least, int64_t *size) {
    int64_t each = (items + threads * 8 - 1) / (threads * 8);
    *size = threads <= 1 ? items : each < least ? least : each;
    if (*size < 1) *size = 1;
    return (int)((items + *size - 1) / *size);
}

#endif
