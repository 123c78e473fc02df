// SPDX-License-Identifier: MIT
/* A small thread pool: one parallel-for at a time over a shared task counter.
 *
 * Workers start at the first call that wants them, spin after a job, for SPIN_NS in the
 * way of others and up to YIELD_NS where nobody else wants the CPU, and then sleep;
 * they are never joined.  A worker that wakes late finds no place left and is not
 * waited for.  A caller who finds the pool busy runs its tasks itself: nested and
 * concurrent calls need no further rule.  A forked child has no workers; the pool is
 * reset there and starts its own. */
#define _GNU_SOURCE
#include "convnet.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

enum { SPIN_NS = 50000, YIELD_NS = 1000000, MAX_WORKERS = 255 };

typedef struct {
    cn_task_t task;
    void *ctx;
    ptrdiff_t n;
    uint64_t float_mode; /* the caller's */
} job_t;

/* A worker asleep: where, and whether it was kept from waking on its caller's CPU. */
typedef struct {
    pthread_t thread;
    pthread_cond_t wake;
    unsigned seen; /* the last job it looked at */
    int asleep, cpu, moved;
#if defined(__linux__)
    cpu_set_t cpus; /* where it may run again once it is awake */
#endif
} worker_t;

static worker_t workers[MAX_WORKERS];

static struct {
    pthread_mutex_t busy; /* held by the one caller whose job runs */
    pthread_mutex_t lock; /* guards the fields below */
    pthread_cond_t done;
    job_t job;
    int n_workers;      /* threads that exist */
    int places;         /* workers that may still join the job */
    int last_place;     /* worker number of the last one that joined */
    atomic_int running; /* workers inside the job */
    atomic_uint job_id;
    atomic_ptrdiff_t next; /* the task counter */
} pool = {.busy = PTHREAD_MUTEX_INITIALIZER,
          .lock = PTHREAD_MUTEX_INITIALIZER,
          .done = PTHREAD_COND_INITIALIZER};

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Whether to go on waiting in a loop that began at `start`. */
static int may_spin(int64_t start) {
    const int64_t waited = now_ns() - start;
    if (waited < SPIN_NS)
        relax();
    else if (waited < YIELD_NS)
        sched_yield();
    return waited < YIELD_NS;
}

static void run_tasks(const job_t *job, int worker) {
    ptrdiff_t i;
    while ((i = atomic_fetch_add_explicit(&pool.next, 1, memory_order_relaxed))
           < job->n)
        job->task(job->ctx, i, worker);
}

/* Where nearly all CPUs are wanted, Linux may wake a worker on the CPU that its caller
 * computes on, though another one is idle, and leave it there for tens of milliseconds.
 * So it may not wake there if it fell asleep there, or if the job has a thread for each
 * CPU; once awake it may run anywhere again.  Both are called with pool.lock held. */
#if defined(__linux__)
static int current_cpu(void) { return sched_getcpu(); }

static void keep_off(int cpu, worker_t *w, int n_threads) {
    cpu_set_t others;
    if (!w->asleep || w->moved || cpu < 0
        || pthread_getaffinity_np(w->thread, sizeof w->cpus, &w->cpus) != 0
        || (w->cpu != cpu && CPU_COUNT(&w->cpus) > n_threads))
        return;
    others = w->cpus;
    CPU_CLR((size_t)cpu, &others);
    w->moved = CPU_COUNT(&others) > 0
               && pthread_setaffinity_np(w->thread, sizeof others, &others) == 0;
}

static void allow_everywhere(worker_t *w) {
    if (w->moved)
        pthread_setaffinity_np(w->thread, sizeof w->cpus, &w->cpus);
    w->moved = 0;
}
#else
static int current_cpu(void) { return -1; }
static void keep_off(int cpu, worker_t *w, int n_threads) {
    (void)cpu, (void)w, (void)n_threads;
}
static void allow_everywhere(worker_t *w) { (void)w; }
#endif

/* Wait for a job that the worker has not seen: spin first, sleep then.  Returns with
 * pool.lock held. */
static void await_job(worker_t *w) {
    const int64_t start = now_ns();
    while (atomic_load_explicit(&pool.job_id, memory_order_relaxed) == w->seen
           && may_spin(start))
        continue;
    pthread_mutex_lock(&pool.lock);
    while (atomic_load_explicit(&pool.job_id, memory_order_relaxed) == w->seen) {
        w->asleep = 1;
        w->cpu = current_cpu();
        pthread_cond_wait(&w->wake, &pool.lock);
        w->asleep = 0;
        allow_everywhere(w);
    }
    w->seen = atomic_load_explicit(&pool.job_id, memory_order_relaxed);
}

static void *worker_main(void *arg) {
    worker_t *w = arg;
    for (;;) {
        await_job(w);
        if (pool.places == 0) {
            pthread_mutex_unlock(&pool.lock);
            continue;
        }
        pool.places--;
        const int place = ++pool.last_place;
        const job_t job = pool.job;
        atomic_fetch_add_explicit(&pool.running, 1, memory_order_relaxed);
        pthread_mutex_unlock(&pool.lock);

        cn_set_float_mode(job.float_mode);
        run_tasks(&job, place);

        pthread_mutex_lock(&pool.lock);
        if (atomic_fetch_sub_explicit(&pool.running, 1, memory_order_release) == 1)
            pthread_cond_signal(&pool.done);
        pthread_mutex_unlock(&pool.lock);
    }
    return NULL;
}

/* In a forked child: the workers are gone, and the locks may be in any state. */
static void reset_in_child(void) {
    pthread_mutex_init(&pool.busy, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.done, NULL);
    pool.n_workers = pool.places = 0;
    atomic_store(&pool.running, 0);
}

static void register_fork_handler(void) { pthread_atfork(NULL, NULL, reset_in_child); }

/* Start workers until there are `wanted`; with pool.busy held.  They block every
 * signal: handlers belong to the threads of the program.  Where the system refuses a
 * thread, the job runs on those there are. */
static void grow(int wanted) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_fork_handler);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool.n_workers < wanted) {
        worker_t *w = &workers[pool.n_workers];
        *w = (worker_t){.wake = PTHREAD_COND_INITIALIZER,
                        .seen = atomic_load(&pool.job_id)};
        if (pthread_create(&w->thread, NULL, worker_main, w) != 0)
            break;
        pthread_detach(w->thread);
        pool.n_workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void open_job(const job_t *job, int places) {
    pthread_mutex_lock(&pool.lock);
    pool.job = *job;
    pool.places = places;
    pool.last_place = 0;
    atomic_store_explicit(&pool.next, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&pool.job_id, 1, memory_order_relaxed);
    for (int i = 0, cpu = current_cpu(); i < places && i < pool.n_workers; i++) {
        keep_off(cpu, &workers[i], places + 1);
        if (workers[i].asleep)
            pthread_cond_signal(&workers[i].wake);
    }
    pthread_mutex_unlock(&pool.lock);
}

/* No worker may join any more; wait for those that did. */
static void close_job(void) {
    pthread_mutex_lock(&pool.lock);
    pool.places = 0;
    pthread_mutex_unlock(&pool.lock);
    const int64_t start = now_ns();
    while (atomic_load_explicit(&pool.running, memory_order_acquire) > 0
           && may_spin(start))
        continue;
    pthread_mutex_lock(&pool.lock);
    while (atomic_load_explicit(&pool.running, memory_order_acquire) > 0)
        pthread_cond_wait(&pool.done, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
}

void cn_parallel_for(cn_task_t task, void *ctx, ptrdiff_t n, int n_threads) {
    if (n_threads > n)
        n_threads = (int)n;
    if (n_threads > MAX_WORKERS + 1)
        n_threads = MAX_WORKERS + 1;
    if (n_threads <= 1 || pthread_mutex_trylock(&pool.busy) != 0) {
        for (ptrdiff_t i = 0; i < n; i++)
            task(ctx, i, 0);
        return;
    }
    const job_t job = {task, ctx, n, cn_float_mode()};
    grow(n_threads - 1);
    open_job(&job, n_threads - 1);
    run_tasks(&job, 0);
    close_job();
    pthread_mutex_unlock(&pool.busy);
}
