// What a "kernel" computes: with ONNX Runtime, where somebody has registered it, else a sum that numpy can repeat.
#pragma once
#include "device.h"
#include "plan.h"
#include <unistd.h>

// (key of the file, file, its size, names of the tensors by lines, how many are inputs, batch, addresses) -> 0 if it went well.
using Compute = int (*)(uint64_t, void const*, uint64_t, char const*, int, int64_t, void* const*);
inline std::atomic<Compute> compute_with{nullptr};
inline std::atomic<int> computing{0};

struct Loaded { // an engine's plan, shared with what still runs of it
  Plan plan;
  std::string names;
  uint64_t key = 0;
  int inputs = 0;
  explicit Loaded(Plan given) : plan(std::move(given)), key(checksum(plan.onnx.data(), plan.onnx.size())) {
    for (auto const& end : plan.ends) names += (names.empty() ? "" : "\n") + end.name, inputs += end.input;
  }
};

struct Launch {
  std::shared_ptr<Loaded> loaded;
  std::shared_ptr<std::atomic<long>> changes; // of the context that it was launched from
  long changed;
  bool captured;
  int64_t batch;
  std::vector<void*> addresses; // in the order of the plan's ends

  int64_t items(End const& end) const { // of one image
    int64_t count = 1;
    for (std::size_t i = 1; i < end.shape.size(); i++) count *= end.shape[i];
    return count;
  }
  bool reaches_only_device_memory() const {
    for (std::size_t i = 0; i < addresses.size(); i++) {
      auto const& end = loaded->plan.ends[i];
      if (!cuda().is_device(uint64_t(addresses[i]), std::size_t(batch * items(end) * bytes_of_type(end.type)))) return false;
    }
    return true;
  }
  // Output k of an image: the sum of those bytes of the image that lie k, k + K, k + 2K, ... behind its beginning, / 4096.
  void sum(End const& from, unsigned char const* images, End const& to, void* outputs) const {
    int64_t size = items(from) * bytes_of_type(from.type), count = items(to);
    for (int64_t n = 0; n < batch; n++) {
      std::vector<int64_t> sums(std::size_t(count), 0);
      for (int64_t i = 0; i < size; i++) sums[std::size_t(i % count)] += images[n * size + i];
      for (int64_t k = 0; k < count; k++) {
        float value = float(double(sums[std::size_t(k)]) / 4096);
        if (to.type == DataType::kFLOAT) static_cast<float*>(outputs)[n * count + k] = value;
        if (to.type == DataType::kHALF) static_cast<_Float16*>(outputs)[n * count + k] = _Float16(value);
      }
    }
  }
  void run() const {
    if (captured && *changes != changed) violation("a graph was replayed whose context had been changed");
    if (!reaches_only_device_memory()) { cuda().fault(700); return; }
    computing++;
    auto* with = compute_with.load();
    int failed = with ? with(loaded->key, loaded->plan.onnx.data(), loaded->plan.onnx.size(), loaded->names.c_str(), loaded->inputs, batch, addresses.data()) : 0;
    computing--;
    if (failed) cuda().fault(719);
    if (with) return;
    for (std::size_t i = 0; i < addresses.size(); i++)
      if (!loaded->plan.ends[i].input) sum(loaded->plan.ends[0], static_cast<unsigned char*>(addresses[0]), loaded->plan.ends[i], addresses[i]);
  }
};

// A captured launch is kept for ever: a graph may replay it as long as the process lives.
inline void perform(void* data) {
  auto* launch = static_cast<Launch*>(data);
  launch->run();
  if (!launch->captured) delete launch;
}

// With null, waits until nobody computes with the old one any more.
STANDIN_API void standin_compute_with(Compute function) {
  compute_with = function;
  while (!function && computing) usleep(100);
}
// What computes has threads that a forked child lacks, and would wait for at its end.
inline void quit(int status, void* process) { if (getpid() != pid_t(reinterpret_cast<intptr_t>(process))) std::fflush(nullptr), _exit(status); }
STANDIN_API void standin_leave_forks_early() { on_exit(quit, reinterpret_cast<void*>(intptr_t(getpid()))); }
STANDIN_API long standin_violations() { return violated; }
