// An execution context: shape, addresses, profile, memory to work in, and the work that it puts into a stream.
#pragma once
#include "compute.h"

enum { SCRATCH_BYTES = 65536, ALIGNMENT = 256 };

struct Engine;
struct Holders { // who has the profiles of an engine: contexts by number
  std::mutex lock;
  std::map<int, void const*> of;
};

struct Context final : IExecutionContext, AnyExecutionContext {
  std::shared_ptr<Loaded> loaded;
  std::shared_ptr<Holders> holders;
  ILogger* logger;
  ICudaEngine const* engine;
  bool user_managed, own_graphs;
  DeviceMemory own;
  void* scratch;
  int profile = -1;
  std::map<std::string, Shape> shapes;
  std::map<std::string, void*> addresses;
  std::shared_ptr<std::atomic<long>> changes = std::make_shared<std::atomic<long>>(0);
  long warm = -1;
  std::atomic_flag busy = ATOMIC_FLAG_INIT;
  std::string name = "Unnamed Context";

  Context(std::shared_ptr<Loaded> l, std::shared_ptr<Holders> h, ILogger* log, ICudaEngine const* e, bool user, bool graphs)
      : loaded(std::move(l)), holders(std::move(h)), logger(log), engine(e), user_managed(user), own_graphs(graphs),
        own(user ? 0 : SCRATCH_BYTES), scratch(own.address) {
    mImpl = this;
    take(0);
    for (auto const& end : loaded->plan.ends) if (end.input && end.shape[0] >= 0) shapes[end.name] = end.shape;
  }
  ~Context() {
    std::lock_guard<std::mutex> held(holders->lock);
    if (profile >= 0 && holders->of[profile] == this) holders->of.erase(profile);
  }
  bool shares() const { return loaded->plan.shares_profile && !setting("STANDIN_PROFILE_TAKEN"); }
  bool take(int index) {
    std::lock_guard<std::mutex> held(holders->lock);
    auto found = holders->of.find(index);
    if (found != holders->of.end() && found->second != this && !shares()) return false;
    if (profile >= 0 && holders->of[profile] == this) holders->of.erase(profile);
    if (found == holders->of.end()) holders->of[index] = this;
    profile = index;
    return true;
  }
  bool failed(std::string const& text) const { say(logger, Severity::kERROR, text); return false; }

  IExecutionContext* getPImpl() noexcept { return this; }
  ICudaEngine const& getEngine() const noexcept { return *engine; }
  void setName(char const* given) noexcept { name = given; }
  char const* getName() const noexcept { return name.c_str(); }
  int32_t getOptimizationProfile() const noexcept { return profile; }
  bool setOptimizationProfileAsync(int32_t index, cudaStream_t) noexcept {
    if (index < 0 || index >= loaded->plan.profiles()) return failed("IExecutionContext::setOptimizationProfileAsync: Error Code 3: API Usage Error (Parameter check failed, condition: profileIndex >= 0 && profileIndex < mEngine.getNbOptimizationProfiles().)");
    if (take(index)) { (*changes)++; return true; }
    return failed(words("IExecutionContext::setOptimizationProfileAsync: Error Code 3: API Usage Error (Profile %d has been chosen by another IExecutionContext. Use another profileIndex or destroy the IExecutionContext that use this profile.)", index));
  }
  void setDeviceMemory(void* memory) noexcept { scratch = memory; (*changes)++; }
  void setDeviceMemoryV2(void* memory, int64_t size) noexcept {
    if (size < SCRATCH_BYTES) failed("IExecutionContext::setDeviceMemoryV2: Error Code 3: API Usage Error (the memory is smaller than getDeviceMemorySizeV2())");
    else setDeviceMemory(memory);
  }
  bool allInputDimensionsSpecified() const noexcept {
    for (auto const& end : loaded->plan.ends) if (end.input && !shapes.count(end.name)) return false;
    return true;
  }
  bool setInputShape(char const* tensor, Dims const& dims) noexcept {
    auto const* end = loaded->plan.end(tensor);
    if (!end || !end->input) return failed(words("IExecutionContext::setInputShape: Error Code 3: API Usage Error (Given invalid tensor name: %s.)", tensor));
    Shape shape = shape_of(dims);
    auto const* range = profile < 0 ? nullptr : loaded->plan.range(end->name, profile);
    if (profile < 0 && end->shape[0] < 0) return failed("IExecutionContext::setInputShape: Error Code 3: API Usage Error (no optimization profile has been set)");
    bool fits = shape.size() == end->shape.size();
    for (std::size_t i = 0; fits && i < shape.size(); i++)
      fits = end->shape[i] >= 0 ? shape[i] == end->shape[i] : range && range->least[i] <= shape[i] && shape[i] <= range->most[i];
    if (!fits) return failed(words("IExecutionContext::setInputShape: Error Code 3: API Usage Error (Parameter check failed, condition: engineDims.d[i] == dims.d[i]. Static dimension mismatch while setting input shape for %s. Set dimensions are [%s]. Expected dimensions are [%s].)", tensor, text_of(shape).c_str(), text_of(end->shape).c_str()));
    shapes[end->name] = shape, (*changes)++;
    return true;
  }
  int64_t batch() const {
    auto found = shapes.find(loaded->plan.ends[0].name);
    return found == shapes.end() ? -1 : found->second[0];
  }
  Dims getTensorShape(char const* tensor) const noexcept {
    auto const* end = loaded->plan.end(tensor);
    if (!end) { Dims none{}; none.nbDims = -1; return none; }
    Shape shape = end->input && shapes.count(end->name) ? shapes.at(end->name) : end->shape;
    if (!shape.empty() && shape[0] < 0) shape[0] = batch();
    return dims_of(shape);
  }
  Dims getTensorStrides(char const* tensor) const noexcept {
    Dims dims = getTensorShape(tensor);
    int64_t stride = 1;
    for (int i = dims.nbDims - 1; i >= 0; i--) { auto length = dims.d[i]; dims.d[i] = decltype(length)(stride); stride *= length; }
    return dims;
  }
  bool setTensorAddress(char const* tensor, void* data) noexcept {
    if (!loaded->plan.end(tensor)) return failed(words("IExecutionContext::setTensorAddress: Error Code 3: API Usage Error (Given invalid tensor name: %s.)", tensor));
    if (uint64_t(data) % ALIGNMENT) return failed(words("IExecutionContext::setTensorAddress: Error Code 3: API Usage Error (Address of %s is not aligned to %d bytes.)", tensor, ALIGNMENT));
    addresses[tensor] = data, (*changes)++;
    return true;
  }
  bool setInputTensorAddress(char const* tensor, void const* data) noexcept { return setTensorAddress(tensor, const_cast<void*>(data)); }
  bool setOutputTensorAddress(char const* tensor, void* data) noexcept { return setTensorAddress(tensor, data); }
  void const* getTensorAddress(char const* tensor) const noexcept {
    auto found = addresses.find(tensor);
    return found == addresses.end() ? nullptr : found->second;
  }
  int32_t inferShapes(int32_t, char const**) noexcept { return batch() < 0 ? 1 : 0; }
  bool isStreamCapturable(cudaStream_t) const noexcept { return user_managed; } // of RTX
  IProfiler* profiler = nullptr;
  void setEnqueueEmitsProfile(bool) noexcept {}
  void setErrorRecorder(IErrorRecorder*) noexcept {}
  IErrorRecorder* getErrorRecorder() const noexcept { return nullptr; }
  void setProfiler(IProfiler* given) noexcept { profiler = given; }
  IProfiler* getProfiler() const noexcept { return profiler; }
  std::size_t updateDeviceMemorySizeForShapes() noexcept { return SCRATCH_BYTES; }

  bool enqueueV3(cudaStream_t stream) noexcept {
    if (profile < 0) return failed("IExecutionContext::enqueueV3: Error Code 3: API Usage Error (Parameter check failed, condition: mOptimizationProfile >= 0.)");
    if (!allInputDimensionsSpecified()) return failed("IExecutionContext::enqueueV3: Error Code 3: API Usage Error (Parameter check failed, condition: allInputDimensionsSpecified().)");
    if (!scratch) return failed("IExecutionContext::enqueueV3: Error Code 3: API Usage Error (no device memory was set for this context)");
    for (auto const& end : loaded->plan.ends)
      if (!addresses.count(end.name)) return failed(words("IExecutionContext::enqueueV3: Error Code 3: API Usage Error (Neither address or allocator is set for %s tensor %s.)", end.input ? "input" : "output", end.name.c_str()));
    if (busy.test_and_set()) { violation("one context in two threads"); return failed("IExecutionContext::enqueueV3: the context is in use"); }
    bool good = put(stream);
    if (good && profiler) { // enqueueEmitsProfile is on: the stream is waited for, then every layer is told
      good = cuda().synchronize(stream) == 0;
      profiler->reportLayerTime("stem/conv + stem/relu", 0.5f * float(batch()));
      profiler->reportLayerTime("fc", 0.25f * float(batch()));
    }
    busy.clear();
    return good;
  }
  bool put(cudaStream_t stream) {
    InContext here;
    int capturing = 0;
    if (int code = cuda().is_capturing(stream, &capturing)) return failed(words("IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (CUDA error %d)", code));
    if (capturing && warm != *changes) violation("captured before a first call with the new shape and addresses");
    if (capturing && IS_RTX && !user_managed) violation("captured a context of TensorRT-RTX that allocates");
    warm = *changes;
    auto* launch = new Launch{loaded, changes, warm, capturing != 0, batch(), {}};
    for (auto const& end : loaded->plan.ends) launch->addresses.push_back(addresses[end.name]);
    int code = cuda().kernel(stream, perform, launch);
    for (int i = 1, kernels = setting("STANDIN_KERNELS", 1); i < kernels && !code; i++) code = cuda().kernel(stream, cuda().nothing, nullptr);
    return code ? failed(words("IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (CUDA error %d)", code)) : true;
  }
};
