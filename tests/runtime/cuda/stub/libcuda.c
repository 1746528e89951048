/* A stand-in for libcuda.so.1 on host memory: what the CUDA seam, cuda-python and pycuda call, and nothing that a GPU does.
 *
 * It is lazy where a GPU is asynchronous: what is put into a stream is done when somebody waits for it, so that a missing
 * wait gives stale bytes every time and not once in a thousand. It refuses what a driver refuses: a call without a
 * context, after a fork, on memory that nobody allocated, or forbidden during a capture. It counts everything that is
 * alive. `stub_*` are its own functions for tests. Names and numbers are those of cuda.h 13.0.
 *
 * Its time is the host's clock, or with a model (STUB_MODEL or `stub_model`) that of a device that works in order: each
 * stream has a timeline of its own, on which events lie.
 *
 *   gcc -shared -fPIC -O2 -Wl,-soname,libcuda.so.1 -o libcuda.so.1 libcuda.c -lpthread
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

typedef int Result;
typedef unsigned long long Address;
enum { OK = 0, INVALID_VALUE = 1, NO_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
       INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700, NOT_SUPPORTED = 801,
       CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901, CAPTURE_UNMATCHED = 903 };

/* **** what is alive **** */

enum { DEVICE_MEMORY, HOST_MEMORY, STREAMS, EVENTS, GRAPHS, EXECS, RETAINS, COUNTS };
static long alive[COUNTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static pid_t started_in; /* the process that called cuInit */
static int sticky;       /* an error of work on the "GPU": every later wait returns it */

void stub_counts(long *out) { memcpy(out, alive, sizeof alive); }

typedef struct Block { char *begin; size_t bytes; int kind, ordinal; unsigned flags; struct Block *next; } Block;
enum { DEVICE_MAP = 2 }; /* CU_MEMHOSTALLOC_DEVICEMAP */
static Block *blocks;
static const size_t TOTAL = 1ul << 30; /* of device memory */
static size_t taken;

static Block *block_of(const void *address, size_t bytes) {
  for (Block *b = blocks; b; b = b->next)
    if ((const char *)address >= b->begin && (const char *)address + bytes <= b->begin + b->bytes) return b;
  return NULL;
}
static int seen_by_device(const Block *b) { return b && (b->kind == DEVICE_MEMORY || b->flags & DEVICE_MAP); }
int stub_is_device(Address address, size_t bytes) {
  pthread_mutex_lock(&lock);
  int answer = seen_by_device(block_of((void *)address, bytes));
  pthread_mutex_unlock(&lock);
  return answer;
}

/* **** calls are counted and can be told to fail **** */

typedef struct Call { const char *name; long count; int code, skip, times; struct Call *next; } Call;
static Call *calls;

static Call *call_named(const char *name) {
  for (Call *c = calls; c; c = c->next)
    if (!strcmp(c->name, name)) return c;
  Call *c = calloc(1, sizeof *c);
  c->name = strdup(name), c->next = calls, calls = c;
  return c;
}
long stub_calls(const char *name) {
  pthread_mutex_lock(&lock);
  long count = call_named(name)->count;
  pthread_mutex_unlock(&lock);
  return count;
}
/* Of the next calls of `name`, `skip` go well and then `times` return `code`. */
void stub_fail(const char *name, int code, int skip, int times) {
  pthread_mutex_lock(&lock);
  Call *c = call_named(name);
  c->code = code, c->skip = skip, c->times = times;
  pthread_mutex_unlock(&lock);
}
void stub_fault(int code) { sticky = code; } /* as a kernel that reads where nothing is */
void stub_heal(void) { sticky = 0; }
void stub_nothing(void *unused) {} /* a host function for who measures what surrounds it */

typedef struct Context { int ordinal; long retained; unsigned flags; } Context;
static Context primary[2] = {{0, 0, 0}, {1, 0, 0}};
static __thread Context *stack[64];
static __thread int depth;

static Result begun(Call *c, int needs_context) {
  c->count++;
  if (!started_in || started_in != getpid()) return NOT_INITIALIZED;
  if (needs_context && (!depth || !stack[depth - 1]->retained)) return INVALID_CONTEXT;
  if (c->times > 0 && c->skip-- <= 0) { c->times--; return c->code; }
  return OK;
}
#define BEGIN(NEEDS_CONTEXT)                                                   \
  static Call *self;                                                           \
  pthread_mutex_lock(&lock);                                                   \
  if (!self) self = call_named(__func__);                                      \
  Result result = begun(self, NEEDS_CONTEXT);                                  \
  if (result != OK) goto end
#define END end: pthread_mutex_unlock(&lock); return result
#define REFUSE(CODE) do { result = (CODE); goto end; } while (0)

/* **** the device model: how long things take, on a timeline that is not the host's **** */

/* kernel, copy: on the device. launch: from the call's end to the start on an idle device. call: of the host, for each
 * launch of a kernel or graph. wake: of a host that waits blocked (CU_CTX_SCHED_BLOCKING_SYNC; on an integrated GPU also
 * CU_CTX_SCHED_AUTO). A kernel behind other work starts when that ends. Without a model all takes the host's time. */
static struct { int on; long long kernel, launch, call, copy, wake; } model;

static long long now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * 1000000000ll + at.tv_nsec;
}
static long long later(long long one, long long other) { return one > other ? one : other; }
static void sleep_until(long long when) {
  for (long long left; (left = when - now()) > 0;) {
    struct timespec most = {0, left > 900000000 ? 900000000 : left - 200000};
    if (left > 400000) nanosleep(&most, NULL);
  }
}
/* Microseconds; a negative kernel time switches the model off. */
void stub_model(double kernel, double launch, double call, double copy, double wake) {
  pthread_mutex_lock(&lock);
  model.on = kernel >= 0;
  model.kernel = kernel * 1e3, model.launch = launch * 1e3, model.call = call * 1e3, model.copy = copy * 1e3, model.wake = wake * 1e3;
  pthread_mutex_unlock(&lock);
}
/* STUB_MODEL="kernel=40 launch=5 call=3 copy=4 wake=50", microseconds; what is left out is 0. */
__attribute__((constructor)) static void model_from_environment(void) {
  static const char *NAMES[] = {"kernel=", "launch=", "call=", "copy=", "wake="};
  const char *text = getenv("STUB_MODEL");
  double us[5] = {0};
  for (int i = 0; text && i < 5; i++) {
    const char *at = strstr(text, NAMES[i]);
    if (at) us[i] = atof(at + strlen(NAMES[i]));
  }
  if (text) stub_model(us[0], us[1], us[2], us[3], us[4]);
}

/* **** driver and devices **** */

static int integrated = -1; /* a GPU that shares the host's memory; STUB_INTEGRATED=1 */
static int is_integrated(void) {
  const char *told = getenv("STUB_INTEGRATED");
  return integrated >= 0 ? integrated : told && atoi(told);
}
void stub_integrated(int yes) { integrated = yes; }
static int capability(void) { const char *told = getenv("STUB_CAPABILITY"); return told ? atoi(told) : 87; }
static int devices(void) { const char *n = getenv("STUB_DEVICES"); return n ? atoi(n) : 1; }
static int hidden(void) { const char *seen = getenv("CUDA_VISIBLE_DEVICES"); return seen && (!*seen || *seen == '-'); }

Result cuInit(unsigned flags) {
  if (started_in && started_in != getpid()) return NOT_INITIALIZED;
  if (!started_in && hidden()) return NO_DEVICE;
  started_in = getpid();
  pthread_mutex_lock(&lock);
  Call *c = call_named("cuInit");
  Result result = begun(c, 0);
  pthread_mutex_unlock(&lock);
  return result;
}
Result cuDriverGetVersion(int *version) { *version = 13000; return OK; }
Result cuDeviceGetCount(int *count) { BEGIN(0); *count = devices(); END; }
Result cuDeviceGet(int *device, int ordinal) {
  BEGIN(0);
  if (ordinal < 0 || ordinal >= devices()) REFUSE(INVALID_DEVICE);
  *device = ordinal;
  END;
}
Result cuDeviceGetName(char *name, int length, int device) { BEGIN(0); snprintf(name, length, "Stand-in %d", device); END; }
Result cuDeviceTotalMem_v2(size_t *bytes, int device) { BEGIN(0); *bytes = TOTAL; END; }
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
  BEGIN(0);
  switch (attribute) {
  case 75: *value = capability() / 10; break;
  case 76: *value = capability() % 10; break;
  case 18: *value = is_integrated(); break; /* INTEGRATED */
  case 19: case 41: case 92: case 94: case 123: *value = 1; break; /* host memory is mapped, one address space, stream waits */
  default: *value = 0;
  }
  END;
}
Result cuDeviceComputeCapability(int *major, int *minor, int device) { *major = capability() / 10, *minor = capability() % 10; return OK; }
Result cuDevicePrimaryCtxRetain(Context **context, int device) {
  BEGIN(0);
  *context = &primary[device], primary[device].retained++, alive[RETAINS]++;
  END;
}
Result cuDevicePrimaryCtxRelease_v2(int device) {
  BEGIN(0);
  if (!primary[device].retained) REFUSE(INVALID_CONTEXT);
  primary[device].retained--, alive[RETAINS]--;
  END;
}
static int schedule_is_known(unsigned flags) { return (flags & 7) == 0 || (flags & 7) == 1 || (flags & 7) == 2 || (flags & 7) == 4; }
Result cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) { /* of a context that is alive too, since CUDA 11 */
  BEGIN(0);
  if (device < 0 || device >= devices()) REFUSE(INVALID_DEVICE);
  if (flags & ~0xffu || !schedule_is_known(flags)) REFUSE(INVALID_VALUE);
  primary[device].flags = flags;
  END;
}
Result cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
  BEGIN(0);
  if (device < 0 || device >= devices()) REFUSE(INVALID_DEVICE);
  *flags = primary[device].flags, *active = primary[device].retained > 0;
  END;
}
Result cuCtxGetFlags(unsigned *flags) { BEGIN(1); *flags = stack[depth - 1]->flags; END; }
Result cuCtxPushCurrent_v2(Context *context) {
  BEGIN(0);
  if (!context || !context->retained || depth == 64) REFUSE(INVALID_CONTEXT);
  stack[depth++] = context;
  END;
}
Result cuCtxPopCurrent_v2(Context **context) {
  BEGIN(0);
  if (!depth) REFUSE(INVALID_CONTEXT);
  *context = stack[--depth];
  END;
}
Result cuCtxSetCurrent(Context *context) {
  BEGIN(0);
  if (depth) depth--;
  if (context) stack[depth++] = context;
  END;
}
Result cuCtxGetCurrent(Context **context) { BEGIN(0); *context = depth ? stack[depth - 1] : NULL; END; }
Result cuCtxGetDevice(int *device) { BEGIN(1); *device = stack[depth - 1]->ordinal; END; }
Result cuCtxGetApiVersion(Context *context, unsigned *version) { *version = 3020; return OK; }

/* **** streams: what is put in is done when somebody waits **** */

enum Kind { COPY, KERNEL, HOST_FUNCTION, RECORD, WAIT, WAIT_VALUE, WRITE_VALUE, GRAPH };
typedef struct Op {
  enum Kind kind;
  long long put; /* when the host let go of it */
  unsigned value, flags;
  void *to; const void *from; size_t bytes;
  void (*function)(void *); void *data;
  struct Event *event; struct Stream *stream; unsigned long upto;
  struct Op *parts, *next;
} Op;
typedef struct Stream { Op *head, **tail, *written, **written_tail; unsigned long put, done; long long reached; int running, capturing, broken, gone; } Stream;
typedef struct Event { Stream *stream; unsigned long upto; int recorded; long long passed; } Event;
typedef struct Graph { Op *ops; } Graph;
static Stream defaults[3];
static __thread Stream *capturing_here;

static Stream *stream_of(Stream *handle) { return (size_t)handle <= 2 ? &defaults[(size_t)handle] : handle; }

static int copy_is_legal(const Op *op) {
  Block *to = block_of(op->to, op->bytes), *from = block_of(op->from, op->bytes);
  return to && from;
}
static void drain(Stream *stream, unsigned long upto);

static int holds(const Op *op) { /* CU_STREAM_WAIT_VALUE_GEQ, _EQ, _AND, _NOR */
  unsigned found = *(volatile unsigned *)op->to, value = op->value;
  return op->flags == 0 ? (int)(found - value) >= 0 : op->flags == 1 ? found == value : op->flags == 2 ? found & value : ~(found | value);
}
/* In the way of everything behind it until somebody writes the value, at the latest when it is looked at here. */
static void wait_for_value(const Op *op) {
  while (!holds(op)) {
    pthread_mutex_unlock(&lock);
    usleep(20);
    pthread_mutex_lock(&lock);
  }
}
static void work(const Op *op) {
  pthread_mutex_unlock(&lock);
  op->function(op->data);
  pthread_mutex_lock(&lock);
}
/* With the lock held; lets go of it while it works, because a host function may need Python's lock. `earliest` is when
 * the device has heard of it. */
static void perform(Stream *stream, Op *op, long long earliest) {
  long long start = model.on ? later(stream->reached, earliest) : 0, end = start;
  switch (op->kind) {
  case COPY:
    if (copy_is_legal(op)) memmove(op->to, op->from, op->bytes);
    else sticky = ILLEGAL_ADDRESS;
    end += model.copy;
    break;
  case KERNEL: work(op); end += model.kernel; break;
  case HOST_FUNCTION: work(op); end = later(start, now()); break;
  case RECORD: op->event->passed = model.on ? start : now(); break;
  case WAIT: drain(op->stream, op->upto); end = later(start, op->event->passed); break;
  case WAIT_VALUE: wait_for_value(op); if (!op->bytes) end = later(start, now()); break;
  case WRITE_VALUE: *(volatile unsigned *)op->to = op->value; break;
  case GRAPH:
    for (Op *part = op->parts; part; part = part->next) perform(stream, part, earliest);
    end = stream->reached;
  }
  stream->reached = model.on ? end : now();
}
static void freed(Op *op) {
  while (op) { Op *next = op->next; if (op->parts) freed(op->parts); free(op); op = next; }
}
static void drain(Stream *stream, unsigned long upto) {
  while (stream->done < upto) {
    if (stream->running) { pthread_cond_wait(&moved, &lock); continue; }
    Op *op = stream->head;
    stream->head = op->next;
    if (!stream->head) stream->tail = NULL;
    op->next = NULL, stream->running = 1;
    perform(stream, op, op->put + model.launch);
    stream->running = 0, stream->done++;
    freed(op);
    pthread_cond_broadcast(&moved);
  }
}
static void take_the_hosts_time(void) { /* a launch keeps its thread busy, and no other */
  pthread_mutex_unlock(&lock);
  sleep_until(now() + model.call);
  pthread_mutex_lock(&lock);
}
static Result put(Stream *stream, Op op) {
  Op *kept = malloc(sizeof op);
  if (model.on && model.call && (op.kind == KERNEL || op.kind == GRAPH)) take_the_hosts_time();
  *kept = op, kept->next = NULL, kept->put = now();
  if (stream->capturing) {
    if (op.kind == WAIT || op.kind == GRAPH) { free(kept); stream->broken = 1; return CAPTURE_UNSUPPORTED; }
    if (stream->written) *stream->written_tail = kept; else stream->written = kept;
    stream->written_tail = &kept->next;
    return OK;
  }
  if (stream->tail) *stream->tail = kept; else stream->head = kept;
  stream->tail = &kept->next, stream->put++;
  return OK;
}
/* The host goes on when the device's timeline has got there. */
static void wait_for_time(long long when) {
  unsigned schedule = depth ? stack[depth - 1]->flags & 7 : 0;
  if (!model.on) return;
  if (schedule == 4 || (schedule == 0 && is_integrated())) when += model.wake;
  pthread_mutex_unlock(&lock);
  sleep_until(when);
  pthread_mutex_lock(&lock);
}
#define STREAM Stream *stream = stream_of(handle); if (stream->gone) REFUSE(INVALID_HANDLE)
/* What may wait for the GPU breaks a capture of the same thread (capture mode "thread local"). */
#define NOT_IN_CAPTURE if (capturing_here) { capturing_here->broken = 1; REFUSE(CAPTURE_UNSUPPORTED); }

Result cuStreamCreate(Stream **handle, unsigned flags) { BEGIN(1); *handle = calloc(1, sizeof(Stream)), alive[STREAMS]++; END; }
Result cuStreamDestroy_v2(Stream *handle) {
  BEGIN(1);
  STREAM;
  drain(stream, stream->put);
  stream->gone = 1, alive[STREAMS]--; /* the struct stays: an event may still name it */
  END;
}
Result cuStreamSynchronize(Stream *handle) {
  BEGIN(1);
  STREAM;
  if (stream->capturing) { stream->broken = 1; REFUSE(CAPTURE_UNSUPPORTED); }
  drain(stream, stream->put);
  wait_for_time(stream->reached);
  result = sticky;
  END;
}
Result cuStreamQuery(Stream *handle) { BEGIN(1); STREAM; if (stream->done < stream->put) REFUSE(NOT_READY); END; }
Result cuCtxSynchronize(void) { BEGIN(1); NOT_IN_CAPTURE; for (int i = 0; i < 3; i++) drain(&defaults[i], defaults[i].put); result = sticky; END; }
Result cuLaunchHostFunc(Stream *handle, void (*function)(void *), void *data) {
  BEGIN(1);
  STREAM;
  result = put(stream, (Op){.kind = HOST_FUNCTION, .function = function, .data = data});
  END;
}
/* What an engine puts into a stream: work of the device's, done by a function of the host. */
Result stub_kernel(Stream *handle, void (*function)(void *), void *data) {
  BEGIN(1);
  STREAM;
  result = put(stream, (Op){.kind = KERNEL, .function = function, .data = data});
  END;
}
static Result value_op(Stream *handle, enum Kind kind, void *address, unsigned value, unsigned flags) {
  Stream *stream = stream_of(handle);
  if (stream->gone) return INVALID_HANDLE;
  if ((size_t)address % 4 || !seen_by_device(block_of(address, 4)) || flags > 3) return INVALID_VALUE;
  Op op = {.kind = kind, .to = address, .value = value, .flags = flags};
  op.bytes = kind == WAIT_VALUE && !stream->capturing && holds(&op); /* it was never in the way */
  return put(stream, op);
}
Result cuStreamWaitValue32_v2(Stream *handle, void *address, unsigned value, unsigned flags) { BEGIN(1); result = value_op(handle, WAIT_VALUE, address, value, flags); END; }
Result cuStreamWriteValue32_v2(Stream *handle, void *address, unsigned value, unsigned flags) { BEGIN(1); result = value_op(handle, WRITE_VALUE, address, value, 0); END; }

/* **** events **** */

Result cuEventCreate(Event **event, unsigned flags) { BEGIN(1); *event = calloc(1, sizeof(Event)), alive[EVENTS]++; END; }
Result cuEventDestroy_v2(Event *event) { BEGIN(1); alive[EVENTS]--; END; } /* stays, as above: it is small */
Result cuEventRecord(Event *event, Stream *handle) {
  BEGIN(1);
  STREAM;
  result = put(stream, (Op){.kind = RECORD, .event = event});
  event->stream = stream, event->upto = stream->put, event->recorded = 1;
  END;
}
Result cuEventSynchronize(Event *event) { BEGIN(1); if (event->recorded) { drain(event->stream, event->upto); wait_for_time(event->passed); } result = sticky; END; }
Result cuEventQuery(Event *event) { BEGIN(1); if (event->recorded && event->stream->done < event->upto) REFUSE(NOT_READY); END; }
Result cuEventElapsedTime_v2(float *ms, Event *before, Event *after) {
  BEGIN(1);
  if (!before->recorded || !after->recorded) REFUSE(INVALID_HANDLE);
  if (before->stream->done < before->upto || after->stream->done < after->upto) REFUSE(NOT_READY);
  *ms = (after->passed - before->passed) * 1e-6;
  END;
}
Result cuEventElapsedTime(float *ms, Event *before, Event *after) { return cuEventElapsedTime_v2(ms, before, after); }
Result cuStreamWaitEvent(Stream *handle, Event *event, unsigned flags) {
  BEGIN(1);
  STREAM;
  if (event->recorded) result = put(stream, (Op){.kind = WAIT, .event = event, .stream = event->stream, .upto = event->upto});
  END;
}

/* **** memory **** */

/* STUB_GUARD=1: whoever touches memory that was given back dies at once (SIGSEGV), and not in malloc some time later. */
static int guarded(void) {
  static int told = -1;
  if (told < 0) told = getenv("STUB_GUARD") != NULL;
  return told;
}
static Result allocated(void **address, size_t bytes, int kind, int ordinal, unsigned flags) {
  if (!bytes) return INVALID_VALUE;
  if (kind == DEVICE_MEMORY && bytes > TOTAL - taken) return NO_MEMORY;
  Block *b = malloc(sizeof *b);
  *b = (Block){NULL, bytes, kind, ordinal, flags, blocks};
  if (guarded()) b->begin = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  else if (posix_memalign((void **)&b->begin, 512, bytes)) { free(b); return NO_MEMORY; }
  memset(b->begin, 0xA5, bytes < 64ul << 20 ? bytes : 64ul << 20); /* memory of a GPU is not zero */
  if (kind == DEVICE_MEMORY) taken += bytes;
  blocks = b, alive[kind]++, *address = b->begin;
  return OK;
}
static Result released(void *address, int kind) {
  for (Block **at = &blocks; *at; at = &(*at)->next)
    if ((*at)->begin == address && (*at)->kind == kind) {
      Block *b = *at;
      *at = b->next, alive[kind]--;
      if (kind == DEVICE_MEMORY) taken -= b->bytes;
      memset(b->begin, 0x5A, b->bytes < 64ul << 20 ? b->bytes : 64ul << 20);
      if (guarded()) mprotect(b->begin, b->bytes, PROT_NONE);
      else free(b->begin);
      free(b);
      return OK;
    }
  return INVALID_VALUE;
}
Result cuMemAlloc_v2(void **address, size_t bytes) {
  BEGIN(1);
  NOT_IN_CAPTURE;
  result = allocated(address, bytes, DEVICE_MEMORY, stack[depth - 1]->ordinal, 0);
  END;
}
Result cuMemFree_v2(void *address) { BEGIN(1); NOT_IN_CAPTURE; result = released(address, DEVICE_MEMORY); END; }
Result cuMemHostAlloc(void **address, size_t bytes, unsigned flags) {
  BEGIN(1);
  NOT_IN_CAPTURE;
  if (flags & ~7u) REFUSE(INVALID_VALUE); /* PORTABLE, DEVICEMAP, WRITECOMBINED */
  result = allocated(address, bytes, HOST_MEMORY, 0, flags);
  END;
}
static Block *host_block(void *address) { Block *b = block_of(address, 1); return b && b->kind == HOST_MEMORY ? b : NULL; }
Result cuMemHostGetDevicePointer_v2(void **device, void *host, unsigned flags) {
  BEGIN(1);
  if (flags || !host_block(host) || !(host_block(host)->flags & DEVICE_MAP)) REFUSE(INVALID_VALUE);
  *device = host; /* one address space */
  END;
}
Result cuMemHostGetFlags(unsigned *flags, void *host) { BEGIN(1); if (!host_block(host)) REFUSE(INVALID_VALUE); *flags = host_block(host)->flags; END; }
Result cuMemFreeHost(void *address) { BEGIN(1); NOT_IN_CAPTURE; result = released(address, HOST_MEMORY); END; }
Result cuMemGetInfo_v2(size_t *unused, size_t *total) { BEGIN(1); *total = TOTAL, *unused = TOTAL - taken; END; }
Result cuPointerGetAttribute(void *value, int attribute, Address address) {
  BEGIN(0);
  Block *b = block_of((void *)address, 1);
  if (!b) REFUSE(INVALID_VALUE);
  if (attribute == 2) *(int *)value = b->kind == DEVICE_MEMORY ? 2 : 1;
  else if (attribute == 9) *(int *)value = b->ordinal;
  else REFUSE(INVALID_VALUE);
  END;
}
/* Memory of a test, on this GPU or on another one that the process has no context of. */
Address stub_memory_of(int ordinal, size_t bytes) {
  void *address = NULL;
  pthread_mutex_lock(&lock);
  allocated(&address, bytes, DEVICE_MEMORY, ordinal, 0), alive[DEVICE_MEMORY]--; /* the test's, not counted */
  pthread_mutex_unlock(&lock);
  return (Address)address;
}
static Result copied(Stream *handle, void *to, const void *from, size_t bytes) {
  Stream *stream = stream_of(handle);
  Op op = {.kind = COPY, .to = to, .from = from, .bytes = bytes};
  if (stream->gone) return INVALID_HANDLE;
  return copy_is_legal(&op) ? put(stream, op) : INVALID_VALUE;
}
Result cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t bytes, Stream *handle) { BEGIN(1); result = copied(handle, to, from, bytes); END; }
Result cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t bytes, Stream *handle) { BEGIN(1); result = copied(handle, to, from, bytes); END; }
Result cuMemcpyDtoDAsync_v2(void *to, const void *from, size_t bytes, Stream *handle) { BEGIN(1); result = copied(handle, to, from, bytes); END; }
Result cuMemcpyHtoD_v2(void *to, const void *from, size_t bytes) {
  BEGIN(1);
  NOT_IN_CAPTURE;
  if (!block_of(to, bytes)) REFUSE(INVALID_VALUE);
  memcpy(to, from, bytes); /* from any host memory */
  END;
}
Result cuMemcpyDtoH_v2(void *to, const void *from, size_t bytes) {
  BEGIN(1);
  NOT_IN_CAPTURE;
  if (!block_of(from, bytes)) REFUSE(INVALID_VALUE);
  drain(&defaults[0], defaults[0].put);
  memcpy(to, from, bytes);
  END;
}

/* **** capture and graphs **** */

static Op *copies_of(const Op *ops) {
  Op *first = NULL, **tail = &first;
  for (; ops; ops = ops->next) { *tail = malloc(sizeof **tail); **tail = *ops; (*tail)->next = NULL; tail = &(*tail)->next; }
  return first;
}
Result cuStreamBeginCapture_v2(Stream *handle, int mode) {
  BEGIN(1);
  STREAM;
  if (stream->capturing || (size_t)handle <= 2) REFUSE(CAPTURE_UNSUPPORTED);
  stream->capturing = 1, stream->broken = 0, stream->written = NULL, capturing_here = stream;
  END;
}
Result cuStreamIsCapturing(Stream *handle, int *status) { BEGIN(1); STREAM; *status = stream->capturing; END; }
Result cuStreamEndCapture(Stream *handle, Graph **graph) {
  BEGIN(1);
  STREAM;
  *graph = NULL;
  if (!stream->capturing || capturing_here != stream) REFUSE(CAPTURE_UNMATCHED);
  stream->capturing = 0, capturing_here = NULL;
  if (stream->broken) { freed(stream->written); stream->written = NULL; REFUSE(CAPTURE_INVALIDATED); }
  *graph = malloc(sizeof(Graph)), (*graph)->ops = stream->written, stream->written = NULL, alive[GRAPHS]++;
  END;
}
Result cuGraphInstantiateWithFlags(Graph **exec, Graph *graph, unsigned long long flags) {
  BEGIN(1);
  *exec = malloc(sizeof(Graph)), (*exec)->ops = copies_of(graph->ops), alive[EXECS]++;
  END;
}
Result cuGraphDestroy(Graph *graph) { BEGIN(1); freed(graph->ops), free(graph), alive[GRAPHS]--; END; }
Result cuGraphExecDestroy(Graph *exec) { BEGIN(1); freed(exec->ops), free(exec), alive[EXECS]--; END; }
Result cuGraphLaunch(Graph *exec, Stream *handle) {
  BEGIN(1);
  STREAM;
  result = put(stream, (Op){.kind = GRAPH, .parts = copies_of(exec->ops)});
  END;
}

/* **** names, and the functions that are there to be found only **** */

static const struct { int code; const char *name, *text; } ERRORS[] = {
  {0, "CUDA_SUCCESS", "no error"}, {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
  {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}, {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
  {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"}, {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"}, {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
  {400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"}, {600, "CUDA_ERROR_NOT_READY", "device not ready"},
  {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
  {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"}, {801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
  {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
  {901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"}};

Result cuGetErrorName(int code, const char **name) {
  for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++) if (ERRORS[i].code == code) { *name = ERRORS[i].name; return OK; }
  *name = NULL;
  return INVALID_VALUE;
}
Result cuGetErrorString(int code, const char **text) {
  for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++) if (ERRORS[i].code == code) { *text = ERRORS[i].text; return OK; }
  *text = NULL;
  return INVALID_VALUE;
}
/* cuda-python asks for functions by the names that programs write, which cuda.h maps to the newest of their versions. */
Result cuGetProcAddress_v2(const char *symbol, void **function, int version, unsigned long long flags, int *status) {
  static const char *ENDINGS[] = {"", "_v2", "_v4", "WithFlags"};
  char name[128];
  *function = NULL;
  for (int i = 3; i >= 0 && !*function; i--) {
    snprintf(name, sizeof name, "%s%s", symbol, ENDINGS[i]);
    *function = dlsym(RTLD_DEFAULT, name);
    Dl_info where, here;
    if (*function && (!dladdr(*function, &where) || !dladdr((void *)cuInit, &here) || where.dli_fbase != here.dli_fbase)) *function = NULL;
  }
  if (status) *status = *function ? 0 : 1;
  return *function ? OK : NOT_FOUND;
}

/* pycuda's module must find them to be imported at all (pycuda 2026.1). */
#define ABSENT(NAME) Result NAME(void) { return NOT_SUPPORTED; }
ABSENT(cuArray3DCreate_v2) ABSENT(cuArray3DGetDescriptor_v2) ABSENT(cuArrayCreate_v2) ABSENT(cuArrayDestroy)
ABSENT(cuArrayGetDescriptor_v2) ABSENT(cuCtxAttach) ABSENT(cuCtxCreate_v4) ABSENT(cuCtxDetach)
ABSENT(cuCtxDisablePeerAccess) ABSENT(cuCtxEnablePeerAccess) ABSENT(cuCtxGetCacheConfig) ABSENT(cuCtxGetLimit)
ABSENT(cuCtxGetSharedMemConfig) ABSENT(cuCtxSetCacheConfig) ABSENT(cuCtxSetLimit) ABSENT(cuCtxSetSharedMemConfig)
ABSENT(cuDeviceCanAccessPeer) ABSENT(cuDeviceGetByPCIBusId) ABSENT(cuDeviceGetPCIBusId) ABSENT(cuFuncGetAttribute)
ABSENT(cuFuncSetAttribute) ABSENT(cuFuncSetBlockShape) ABSENT(cuFuncSetCacheConfig) ABSENT(cuFuncSetSharedSize)
ABSENT(cuIpcCloseMemHandle) ABSENT(cuIpcGetEventHandle) ABSENT(cuIpcGetMemHandle) ABSENT(cuIpcOpenEventHandle)
ABSENT(cuIpcOpenMemHandle_v2) ABSENT(cuLaunch) ABSENT(cuLaunchGrid) ABSENT(cuLaunchGridAsync) ABSENT(cuLaunchKernel)
ABSENT(cuLinkAddData_v2) ABSENT(cuLinkAddFile_v2) ABSENT(cuLinkComplete) ABSENT(cuLinkCreate_v2) ABSENT(cuLinkDestroy)
ABSENT(cuMemAllocManaged) ABSENT(cuMemAllocPitch_v2) ABSENT(cuMemGetAddressRange_v2)
ABSENT(cuMemHostRegister_v2)
ABSENT(cuMemHostUnregister) ABSENT(cuMemcpy2DAsync_v2) ABSENT(cuMemcpy2DUnaligned_v2) ABSENT(cuMemcpy2D_v2)
ABSENT(cuMemcpy3DAsync_v2) ABSENT(cuMemcpy3DPeer) ABSENT(cuMemcpy3DPeerAsync) ABSENT(cuMemcpy3D_v2)
ABSENT(cuMemcpyAtoA_v2) ABSENT(cuMemcpyAtoD_v2) ABSENT(cuMemcpyAtoH_v2) ABSENT(cuMemcpyDtoA_v2)
ABSENT(cuMemcpyDtoD_v2)  ABSENT(cuMemcpyHtoA_v2) ABSENT(cuMemcpyPeer) ABSENT(cuMemcpyPeerAsync)
ABSENT(cuMemsetD16Async) ABSENT(cuMemsetD16_v2) ABSENT(cuMemsetD2D16Async) ABSENT(cuMemsetD2D16_v2)
ABSENT(cuMemsetD2D32Async) ABSENT(cuMemsetD2D32_v2) ABSENT(cuMemsetD2D8Async) ABSENT(cuMemsetD2D8_v2)
ABSENT(cuMemsetD32Async) ABSENT(cuMemsetD32_v2) ABSENT(cuMemsetD8Async) ABSENT(cuMemsetD8_v2)
ABSENT(cuModuleGetFunction) ABSENT(cuModuleGetGlobal_v2) ABSENT(cuModuleGetSurfRef) ABSENT(cuModuleGetTexRef)
ABSENT(cuModuleLoad) ABSENT(cuModuleLoadData) ABSENT(cuModuleLoadDataEx) ABSENT(cuModuleUnload) ABSENT(cuParamSetSize)
ABSENT(cuParamSetTexRef) ABSENT(cuParamSetf) ABSENT(cuParamSeti) ABSENT(cuParamSetv) ABSENT(cuProfilerInitialize)
ABSENT(cuProfilerStart) ABSENT(cuProfilerStop) ABSENT(cuStreamAttachMemAsync) ABSENT(cuSurfRefGetArray)
ABSENT(cuSurfRefSetArray) ABSENT(cuTexRefCreate) ABSENT(cuTexRefDestroy) ABSENT(cuTexRefGetAddressMode)
ABSENT(cuTexRefGetAddress_v2) ABSENT(cuTexRefGetArray) ABSENT(cuTexRefGetFilterMode) ABSENT(cuTexRefGetFlags)
ABSENT(cuTexRefGetFormat) ABSENT(cuTexRefSetAddress2D_v3) ABSENT(cuTexRefSetAddressMode) ABSENT(cuTexRefSetAddress_v2)
ABSENT(cuTexRefSetArray) ABSENT(cuTexRefSetFilterMode) ABSENT(cuTexRefSetFlags) ABSENT(cuTexRefSetFormat)
