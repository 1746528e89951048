// The GPU, through the process's libcuda.so.1, as the CUDA runtime inside TensorRT uses it: the primary context of GPU 0.
#pragma once
#include "standin.h"
#include <dlfcn.h>

struct Cuda {
  int (*init)(unsigned), (*current)(void**), (*push)(void*), (*pop)(void**), (*retain)(void**, int);
  int (*synchronize)(void*);
  int (*allocate)(void**, std::size_t), (*release)(void*), (*is_capturing)(void*, int*);
  int (*kernel)(void*, void (*)(void*), void*), (*is_device)(uint64_t, std::size_t);
  void (*fault)(int), (*nothing)(void*);
  void* library;

  Cuda() : library(dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL)) {
    find(init, "cuInit"), find(current, "cuCtxGetCurrent"), find(push, "cuCtxPushCurrent_v2"), find(pop, "cuCtxPopCurrent_v2");
    find(retain, "cuDevicePrimaryCtxRetain"), find(allocate, "cuMemAlloc_v2"), find(release, "cuMemFree_v2");
    find(is_capturing, "cuStreamIsCapturing"), find(kernel, "stub_kernel"), find(is_device, "stub_is_device");
    find(synchronize, "cuStreamSynchronize"), find(fault, "stub_fault"), find(nothing, "stub_nothing");
  }
  template <class F> void find(F& function, char const* name) {
    function = library ? reinterpret_cast<F>(dlsym(library, name)) : nullptr;
  }
  // 0, or why CUDA cannot be started, as the CUDA runtime numbers it.
  int error() const {
    if (int told = setting("STANDIN_CUDA_ERROR")) return told;
    if (!library || !kernel) return 35; // cudaErrorInsufficientDriver: also where there is a driver, and not the stand-in's
    int code = init(0);
    return code == 3 ? 3 : code ? 100 : 0;
  }
};
inline Cuda& cuda() {
  static Cuda* found = new Cuda; // never freed: threads may use it to the end
  return *found;
}
inline std::string cuda_words(int error) {
  return words("CUDA initialization failure with error: %d. Please check your CUDA installation: "
               "http://docs.nvidia.com/cuda/cuda-installation-guide-linux/index.html", error);
}

static std::atomic<int> retained{0}; // the primary context, once, for good: as the CUDA runtime inside TensorRT does
STANDIN_API int standin_retained() { return retained; }

// A context current in this thread for as long as this lives: the one there is, else the primary one.
struct InContext {
  bool pushed = false;
  InContext() {
    void* found = nullptr;
    if (cuda().current(&found) == 0 && found) return;
    static void* primary = [] { void* made = nullptr; retained += cuda().retain(&made, 0) == 0; return made; }();
    pushed = cuda().push(primary) == 0;
  }
  ~InContext() { void* popped; if (pushed) cuda().pop(&popped); }
};

// Device memory of an engine or a context, given back with it as cudaFree does: in a capture of this thread that breaks it.
struct DeviceMemory {
  void* address = nullptr;
  explicit DeviceMemory(std::size_t size) { InContext here; if (size && cuda().allocate(&address, size)) address = nullptr; }
  ~DeviceMemory() { InContext here; if (address) cuda().release(address); }
  DeviceMemory(DeviceMemory const&) = delete;
};
