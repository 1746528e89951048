// What all parts share: settings, TensorRT's log, host memory, and the end of a process that calls what is not there.
#pragma once
#include "NvInfer.h"
#include "NvOnnxParser.h"
#include <atomic>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#if NV_TENSORRT_MAJOR == 8
using DimsIn = nvinfer1::Dims;
#else
using DimsIn = nvinfer1::Dims const&;
#endif
#ifdef STANDIN_RTX
#define IS_RTX 1
#else
#define IS_RTX 0
#endif
#define STANDIN_API extern "C" __attribute__((visibility("default")))

[[noreturn]] inline void refuse(char const* method) {
  std::fprintf(stderr, "the stand-in libnvinfer has no %s: it is called here for the first time\n", method);
  std::abort();
}
#include "bases.inc"

using namespace nvinfer1;
using Severity = ILogger::Severity;

// STANDIN_CUDA_ERROR, STANDIN_PROFILE_TAKEN, ...: read anew at every use, so that a test can change them.
inline int setting(char const* name, int otherwise = 0) {
  char const* text = std::getenv(name);
  return text && *text ? std::atoi(text) : otherwise;
}

inline std::string words(char const* form, ...) {
  char text[2048];
  va_list more;
  va_start(more, form);
  std::vsnprintf(text, sizeof text, form, more);
  va_end(more);
  return text;
}
inline void say(ILogger* logger, Severity severity, std::string const& text) {
  if (logger) logger->log(severity, text.c_str());
}

// What TensorRT's guide forbids and the real one would only misbehave at.
inline std::atomic<long> violated{0};
inline void violation(char const* what) {
  violated++;
  std::fprintf(stderr, "violation: %s\n", what);
}

inline std::string version_text() {
  return words("%d.%d.%d", NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR, NV_TENSORRT_PATCH);
}

struct Memory final : IHostMemory, AnyHostMemory {
  std::string bytes;
  explicit Memory(std::string given) : bytes(std::move(given)) { mImpl = this; }
  void* data() const noexcept { return const_cast<char*>(bytes.data()); }
  std::size_t size() const noexcept { return bytes.size(); }
  DataType type() const noexcept { return DataType::kINT8; }
};

inline uint64_t checksum(void const* data, std::size_t size) { // FNV-1a
  uint64_t sum = 1469598103934665603ull;
  for (std::size_t i = 0; i < size; i++) sum = (sum ^ static_cast<unsigned char const*>(data)[i]) * 1099511628211ull;
  return sum;
}

inline std::vector<std::string> split(std::string const& text, char by) {
  std::vector<std::string> parts{""};
  for (char c : text)
    if (c == by) parts.emplace_back();
    else parts.back() += c;
  return parts;
}
