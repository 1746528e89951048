// Runtime, engine, inspector: a plan made runnable, and its layers in the words of each generation.
#pragma once
#include "context.h"

#ifdef STANDIN_RTX
struct RuntimeConfig final : IRuntimeConfig, AnyRuntimeConfig {
  ExecutionContextAllocationStrategy strategy = ExecutionContextAllocationStrategy::kSTATIC;
  CudaGraphStrategy graphs = CudaGraphStrategy::kDISABLED;
  RuntimeConfig() { mImpl = this; }
  IRuntimeConfig* getPImpl() noexcept { return this; }
  void setExecutionContextAllocationStrategy(ExecutionContextAllocationStrategy given) noexcept { strategy = given; }
  ExecutionContextAllocationStrategy getExecutionContextAllocationStrategy() const noexcept { return strategy; }
  bool setCudaGraphStrategy(CudaGraphStrategy given) noexcept { graphs = given; return true; }
  CudaGraphStrategy getCudaGraphStrategy() const noexcept { return graphs; }
};
#endif

inline std::string quoted(std::string const& text) { // as TensorRT writes it: control characters stay what they are
  std::string found = "\"";
  for (char c : text) found += (c == '"' || c == '\\') ? std::string("\\") + c : std::string(1, c);
  return found + "\"";
}

struct Inspector final : IEngineInspector, AnyEngineInspector {
  std::shared_ptr<Loaded> loaded;
  IExecutionContext const* context = nullptr;
  mutable std::string text;
  explicit Inspector(std::shared_ptr<Loaded> l) : loaded(std::move(l)) { mImpl = this; }
  IEngineInspector* getPImpl() noexcept { return this; }
  bool setExecutionContext(IExecutionContext const* given) noexcept { context = given; return true; }
  IExecutionContext const* getExecutionContext() const noexcept { return context; }
  void setErrorRecorder(IErrorRecorder*) noexcept {}
  IErrorRecorder* getErrorRecorder() const noexcept { return nullptr; }

  std::string type_words(std::string const& type) const {
    if (!context && loaded->plan.ends[0].shape[0] < 0) return "N/A due to dynamic shapes";
    if (NV_TENSORRT_MAJOR >= 11) return type;
    return type == "Int8" ? "Thirty-two wide channel vectorized row major Int8 format" : type == "Half" ? "Row major linear FP16 format" : "Row major linear FP32";
  }
  std::string tensors(std::vector<std::string> const& named) const {
    std::string found = "[";
    for (std::size_t i = 0; i < named.size(); i++) {
      auto at = named[i].rfind(':');
      std::string type = type_words(named[i].substr(at + 1));
      found += (i ? "," : "") + std::string("{\"Name\": ") + quoted(named[i].substr(0, at)) + ",\"Dimensions\": [],";
      found += NV_TENSORRT_MAJOR >= 11 ? "\"Datatype\": " + quoted(type) + ",\"Format\": \"Row major format\"}" : "\"Format/Datatype\": " + quoted(type) + "}";
    }
    return found + "]";
  }
  std::string layer(Layer const& one) const {
    if (!loaded->plan.detailed) return quoted(one.name);
    bool convolution = one.kind == "convolution";
    std::string kind = !convolution || NV_TENSORRT_MAJOR >= 11 ? one.kind : "CaskConvolution", nodes;
    for (auto const& node : split(one.nodes, '\x1e')) nodes += (nodes.empty() ? "[ONNX Layer: " : "\x1e[ONNX Layer: ") + node + "]";
    std::string found = "{\"Name\": " + quoted(one.name) + ",\"LayerType\": " + quoted(kind);
    found += ",\"Inputs\": " + tensors(one.reads) + ",\"Outputs\": " + tensors(one.writes);
    if (convolution && NV_TENSORRT_MAJOR < 11) found += ",\"ParameterType\": \"Convolution\"";
    return found + ",\"TacticName\": \"standin\",\"StreamId\": 0,\"Metadata\": " + quoted(nodes) + "}";
  }
  char const* getLayerInformation(int32_t index, LayerInformationFormat) const noexcept {
    text = layer(loaded->plan.layers[std::size_t(index)]);
    return text.c_str();
  }
  char const* getEngineInformation(LayerInformationFormat) const noexcept {
    text = "{\"Layers\": [";
    for (std::size_t i = 0; i < loaded->plan.layers.size(); i++) text += (i ? ",\n" : "\n") + layer(loaded->plan.layers[i]);
    text += "],\n\"Bindings\": [";
    for (std::size_t i = 0; i < loaded->plan.ends.size(); i++) text += (i ? "," : "") + quoted(loaded->plan.ends[i].name);
    text += "]}\n";
    return text.c_str();
  }
};

struct Engine final : ICudaEngine, AnyCudaEngine {
  std::shared_ptr<Loaded> loaded;
  std::shared_ptr<Holders> holders = std::make_shared<Holders>();
  ILogger* logger;
  DeviceMemory weights;
  Engine(Plan plan, ILogger* log) : loaded(std::make_shared<Loaded>(std::move(plan))), logger(log), weights(loaded->plan.onnx.size() + 1) { mImpl = this; }

  IExecutionContext* context(bool user_managed, bool own_graphs = false) const {
    return new Context(loaded, holders, logger, this, user_managed, own_graphs);
  }
  End const* end(char const* tensor) const {
    auto const* found = loaded->plan.end(tensor);
    if (!found) say(logger, Severity::kERROR, words("ICudaEngine: Error Code 3: API Usage Error (Given invalid tensor name: %s.)", tensor));
    return found;
  }
  static Dims none() { Dims dims{}; dims.nbDims = -1; return dims; }

  ICudaEngine* getPImpl() noexcept { return this; }
  int32_t getNbLayers() const noexcept { return int32_t(loaded->plan.layers.size()); }
  IHostMemory* serialize() const noexcept { return new Memory(bytes_of_plan(loaded->plan)); }
#if NV_TENSORRT_MAJOR == 8
  IExecutionContext* createExecutionContext() noexcept { return context(false); }
#else
  IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept {
    return context(strategy == ExecutionContextAllocationStrategy::kUSER_MANAGED);
  }
#endif
  IExecutionContext* createExecutionContextWithoutDeviceMemory() noexcept { return context(true); }
#ifdef STANDIN_RTX
  IRuntimeConfig* createRuntimeConfig() noexcept { return new RuntimeConfig; }
  IExecutionContext* createExecutionContextWithRuntimeConfig(IRuntimeConfig* given) noexcept {
    auto* config = static_cast<RuntimeConfig*>(given);
    return context(config->strategy == ExecutionContextAllocationStrategy::kUSER_MANAGED, config->graphs != CudaGraphStrategy::kDISABLED);
  }
#endif
  bool isRefittable() const noexcept { return false; }
  char const* getName() const noexcept { return "Unnamed Network 0"; }
  int32_t getNbOptimizationProfiles() const noexcept { return loaded->plan.profiles(); }
  EngineCapability getEngineCapability() const noexcept { return EngineCapability::kSTANDARD; }
  void setErrorRecorder(IErrorRecorder*) noexcept {}
  IErrorRecorder* getErrorRecorder() const noexcept { return nullptr; }
  bool hasImplicitBatchDimension() const noexcept { return false; }
  ProfilingVerbosity getProfilingVerbosity() const noexcept { return loaded->plan.detailed ? ProfilingVerbosity::kDETAILED : ProfilingVerbosity::kLAYER_NAMES_ONLY; }
  IEngineInspector* createEngineInspector() const noexcept { return new Inspector(loaded); }
  std::size_t getDeviceMemorySize() const noexcept { return SCRATCH_BYTES; }
  int64_t getDeviceMemorySizeV2() const noexcept { return SCRATCH_BYTES; }
  Dims getTensorShape(char const* tensor) const noexcept { auto const* found = end(tensor); return found ? dims_of(found->shape) : none(); }
  DataType getTensorDataType(char const* tensor) const noexcept { auto const* found = end(tensor); return found ? found->type : DataType::kFLOAT; }
  TensorLocation getTensorLocation(char const*) const noexcept { return TensorLocation::kDEVICE; }
  bool isShapeInferenceIO(char const*) const noexcept { return false; }
  TensorIOMode getTensorIOMode(char const* tensor) const noexcept {
    auto const* found = end(tensor);
    return !found ? TensorIOMode::kNONE : found->input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
  }
  TensorFormat getTensorFormat(char const*) const noexcept { return TensorFormat::kLINEAR; }
  TensorFormat getTensorFormatV2(char const*, int32_t) const noexcept { return TensorFormat::kLINEAR; }
  Dims getProfileShape(char const* tensor, int32_t profile, OptProfileSelector select) const noexcept {
    auto const* range = loaded->plan.range(tensor, profile);
    if (!range) { say(logger, Severity::kERROR, words("ICudaEngine::getProfileShape: Error Code 3: API Usage Error (%s is no input with a profile %d)", tensor, profile)); return none(); }
    return dims_of(select == OptProfileSelector::kMIN ? range->least : select == OptProfileSelector::kOPT ? range->best : range->most);
  }
  int32_t getNbIOTensors() const noexcept { return int32_t(loaded->plan.ends.size()); }
  char const* getIOTensorName(int32_t index) const noexcept { return index < getNbIOTensors() ? loaded->plan.ends[std::size_t(index)].name.c_str() : nullptr; }
  HardwareCompatibilityLevel getHardwareCompatibilityLevel() const noexcept { return HardwareCompatibilityLevel::kNONE; }
  int32_t getNbAuxStreams() const noexcept { return 0; }
  // What 8.6's bindings still have under the names of bindings.
  int32_t getNbBindings() const noexcept { return getNbIOTensors(); }
  char const* getBindingName(int32_t index) const noexcept { return getIOTensorName(index); }
};

struct Runtime final : IRuntime, AnyRuntime {
  ILogger* logger;
  int32_t core = -1;
  bool host_code = false;
  explicit Runtime(ILogger* log) : logger(log) { mImpl = this; }
  IRuntime* getPImpl() noexcept { return this; }
  ICudaEngine* read(void const* blob, std::size_t size) {
    Plan plan;
    std::string wrong = plan_of_bytes(static_cast<char const*>(blob), size, plan);
    if (wrong.empty() && plan.flags >> int(BuilderFlag::kVERSION_COMPATIBLE) & 1 && !host_code)
      wrong = "The engine was built with VERSION_COMPATIBLE and holds host code: setEngineHostCodeAllowed(true) before it is read.";
    if (!wrong.empty()) { say(logger, Severity::kERROR, "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (" + wrong + ")"); return nullptr; }
    return new Engine(std::move(plan), logger);
  }
#if NV_TENSORRT_MAJOR == 8
  ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size, IPluginFactory*) noexcept { return read(blob, size); }
#else
  ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept { return read(blob, size); }
#endif
  void setDLACore(int32_t given) noexcept { core = given; }
  int32_t getDLACore() const noexcept { return core; }
  int32_t getNbDLACores() const noexcept { return setting("STANDIN_DLA_CORES"); }
  void setErrorRecorder(IErrorRecorder*) noexcept {}
  IErrorRecorder* getErrorRecorder() const noexcept { return nullptr; }
  ILogger* getLogger() const noexcept { return logger; }
  bool setMaxThreads(int32_t) noexcept { return true; }
  int32_t getMaxThreads() const noexcept { return 1; }
  void setEngineHostCodeAllowed(bool allowed) noexcept { host_code = allowed; }
  bool getEngineHostCodeAllowed() const noexcept { return host_code; }
};

// What TensorRT 10 and 11 hand out where CUDA cannot be started: any use of it ends the process, and so does its end.
struct BrokenRuntime final : IRuntime {
  BrokenRuntime() { mImpl = nullptr; }
  ~BrokenRuntime() { *static_cast<int volatile*>(nullptr) = 0; }
};

STANDIN_API void* createInferRuntime_INTERNAL(void* given, int32_t) noexcept {
  auto* logger = static_cast<ILogger*>(given);
  int error = cuda().error();
  if (!error) return static_cast<IRuntime*>(new Runtime(logger));
  if (NV_TENSORRT_MAJOR == 8) { say(logger, Severity::kWARNING, cuda_words(error)); *static_cast<int volatile*>(nullptr) = 0; }
  say(logger, Severity::kERROR, "createInferRuntime: Error Code 6: API Usage Error (" + cuda_words(error) + ")");
  return static_cast<IRuntime*>(new BrokenRuntime);
}
