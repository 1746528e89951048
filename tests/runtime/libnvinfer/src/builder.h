// Builder, its config, timing caches, and which layers a plan has.
#pragma once
#include "device.h"
#include "parser.h"
#include <unistd.h>

struct OptimizationProfile final : IOptimizationProfile, AnyOptimizationProfile {
  std::map<std::string, Range> ranges;
  OptimizationProfile() { mImpl = this; }
  bool setDimensions(char const* input, OptProfileSelector select, DimsIn dims) noexcept {
    auto& range = ranges[input];
    (select == OptProfileSelector::kMIN ? range.least : select == OptProfileSelector::kOPT ? range.best : range.most) = shape_of(dims);
    return true;
  }
  Dims getDimensions(char const* input, OptProfileSelector select) const noexcept {
    auto found = ranges.find(input);
    if (found == ranges.end()) { Dims none{}; none.nbDims = -1; return none; }
    auto const& range = found->second;
    return dims_of(select == OptProfileSelector::kMIN ? range.least : select == OptProfileSelector::kOPT ? range.best : range.most);
  }
  bool isValid() const noexcept {
    for (auto const& entry : ranges) {
      auto const& r = entry.second;
      if (r.least.size() != r.best.size() || r.best.size() != r.most.size()) return false;
      for (std::size_t i = 0; i < r.least.size(); i++) if (r.least[i] > r.best[i] || r.best[i] > r.most[i]) return false;
    }
    return true;
  }
};

// Text: a line of magic with version, then a line for each network that was timed.
struct TimingCache final : ITimingCache, AnyTimingCache {
  std::vector<std::string> lines;
  TimingCache() { mImpl = this; }
  static std::string magic() { return "standin-timings " + version_text(); }
  bool read(std::string const& text) {
    auto found = split(text, '\n');
    if (text.empty()) return true;
    if (found[0] != magic()) return false;
    for (std::size_t i = 1; i + 1 < found.size(); i++) lines.push_back(found[i]);
    return true;
  }
  bool has(std::string const& line) const { for (auto const& l : lines) if (l == line) return true; return false; }
  void add(std::string const& line) { if (!has(line)) lines.push_back(line); }
  IHostMemory* serialize() const noexcept { return new Memory(magic() + "\n" + joined(lines, '\n') + (lines.empty() ? "" : "\n")); }
  bool combine(ITimingCache const& other, bool) noexcept {
    for (auto const& line : static_cast<TimingCache const&>(other).lines) add(line);
    return true;
  }
  bool reset() noexcept { lines.clear(); return true; }
};

struct BuilderConfig final : IBuilderConfig, AnyBuilderConfig {
  ILogger* logger;
  uint64_t flags = IS_RTX ? 0 : 1u << int(BuilderFlag::kTF32), previews = 0;
  std::vector<OptimizationProfile const*> profiles;
  std::map<int, std::size_t> pools;
  ProfilingVerbosity verbosity = ProfilingVerbosity::kLAYER_NAMES_ONLY;
  TimingCache own, *timings = &own; // a caller's stays the caller's: the bindings would free what they do not know
  int32_t level = 3, dla_core = -1, capabilities = 0;
  DeviceType device = DeviceType::kGPU;
  HardwareCompatibilityLevel hardware = HardwareCompatibilityLevel::kNONE;
  explicit BuilderConfig(ILogger* log) : logger(log) { mImpl = this; }
  void setFlags(BuilderFlags given) noexcept { flags = given; }
  BuilderFlags getFlags() const noexcept { return BuilderFlags(flags); }
  void clearFlag(BuilderFlag flag) noexcept { flags &= ~(1ull << int(flag)); }
  void setFlag(BuilderFlag flag) noexcept { flags |= 1ull << int(flag); }
  bool getFlag(BuilderFlag flag) const noexcept { return flags >> int(flag) & 1; }
  int32_t addOptimizationProfile(IOptimizationProfile const* given) noexcept {
    auto const* profile = static_cast<OptimizationProfile const*>(given);
    if (!profile->isValid()) { say(logger, Severity::kERROR, "IBuilderConfig::addOptimizationProfile: Error Code 3: API Usage Error (Parameter check failed, condition: profile->isValid().)"); return -1; }
    profiles.push_back(profile);
    return int32_t(profiles.size()) - 1;
  }
  int32_t getNbOptimizationProfiles() const noexcept { return int32_t(profiles.size()); }
  void setProfilingVerbosity(ProfilingVerbosity given) noexcept { verbosity = given; }
  ProfilingVerbosity getProfilingVerbosity() const noexcept { return verbosity; }
  ITimingCache* createTimingCache(void const* blob, std::size_t size) const noexcept {
    auto* made = new TimingCache;
    if (made->read(std::string(static_cast<char const*>(blob), size))) return made;
    say(logger, Severity::kERROR, "IBuilderConfig::createTimingCache: Error Code 1: Serialization (Serialization assertion header.magicTag failed.Magic tag does not match)");
    delete made;
    return nullptr;
  }
  bool setTimingCache(ITimingCache const& given, bool) noexcept { timings = const_cast<TimingCache*>(static_cast<TimingCache const*>(&given)); return true; }
  ITimingCache const* getTimingCache() const noexcept { return timings == &own ? nullptr : timings; }
  void setMemoryPoolLimit(MemoryPoolType pool, std::size_t size) noexcept { pools[int(pool)] = size; }
  std::size_t getMemoryPoolLimit(MemoryPoolType pool) const noexcept { auto found = pools.find(int(pool)); return found == pools.end() ? std::size_t(1) << 30 : found->second; }
  void setPreviewFeature(PreviewFeature feature, bool enable) noexcept { previews = enable ? previews | 1ull << int(feature) : previews & ~(1ull << int(feature)); }
  bool getPreviewFeature(PreviewFeature feature) const noexcept { return previews >> int(feature) & 1; }
  void setBuilderOptimizationLevel(int32_t given) noexcept { level = given; }
  int32_t getBuilderOptimizationLevel() const noexcept { return level; }
  void setHardwareCompatibilityLevel(HardwareCompatibilityLevel given) noexcept { hardware = given; }
  HardwareCompatibilityLevel getHardwareCompatibilityLevel() const noexcept { return hardware; }
  void setDefaultDeviceType(DeviceType given) noexcept { device = given; }
  DeviceType getDefaultDeviceType() const noexcept { return device; }
  void setDLACore(int32_t given) noexcept { dla_core = given; }
  int32_t getDLACore() const noexcept { return dla_core; }
  bool canRunOnDLA(ILayer const* layer) const noexcept { return layer->getType() == LayerType::kCONVOLUTION; }
#if NV_TENSORRT_MAJOR != 8
  IProgressMonitor* monitor = nullptr;
  void setProgressMonitor(IProgressMonitor* given) noexcept { monitor = given; }
  IProgressMonitor* getProgressMonitor() const noexcept { return monitor; }
#endif
#ifdef STANDIN_RTX
  std::map<int32_t, ComputeCapability> capability;
  bool setNbComputeCapabilities(int32_t count) noexcept { capabilities = count; return true; }
  int32_t getNbComputeCapabilities() const noexcept { return capabilities; }
  bool setComputeCapability(ComputeCapability given, int32_t index) noexcept { capability[index] = given; return true; }
  ComputeCapability getComputeCapability(int32_t index) const noexcept { return capability.at(index); }
#endif
#if NV_TENSORRT_MAJOR == 8 || (NV_TENSORRT_MAJOR == 10)
  IInt8Calibrator* calibrator = nullptr;
  void setInt8Calibrator(IInt8Calibrator* given) noexcept { calibrator = given; }
  IInt8Calibrator* getInt8Calibrator() const noexcept { return calibrator; }
#endif
};

// A node a layer, without what only carries numbers; a Conv takes the Relu behind it. INT8 is what comes out of a Q/DQ.
inline std::vector<Layer> layers_of(Network const& network) {
  std::map<std::string, OnnxNode const*> maker, reader;
  for (auto const& node : network.file.nodes) {
    for (auto const& output : node.outputs) maker[output] = &node;
    for (auto const& input : node.inputs) reader[input] = &node;
  }
  auto made_by = [&](std::string const& tensor, char const* op) { auto found = maker.find(tensor); return found != maker.end() && found->second->op == op; };
  auto read_by = [&](std::string const& tensor, char const* op) { auto found = reader.find(tensor); return found != reader.end() && found->second->op == op; };
  std::string carried = name_of_type(network.carries());
  std::vector<Layer> layers;
  for (auto const& node : network.file.nodes) {
    bool convolution = node.op == "Conv";
    if (node.op == "Constant" || node.op == "QuantizeLinear" || node.op == "DequantizeLinear" || node.outputs.empty()) continue;
    if (node.op == "Relu" && made_by(node.inputs[0], "Conv")) continue;
    Layer layer{node.name, convolution ? "convolution" : IS_RTX || NV_TENSORRT_MAJOR >= 11 ? "kgen" : "PointWiseV2", node.name, {}, {}};
    std::string output = node.outputs[0];
    if (convolution && read_by(output, "Relu")) {
      auto const& relu = *reader[output];
      layer.name += " + " + relu.name, layer.nodes += "\x1e" + relu.name, output = relu.outputs[0];
    }
    for (auto const& input : node.inputs)
      if (!network.file.weights.count(input) && !made_by(input, "Constant") && (!convolution || input == node.inputs[0]))
        layer.reads.push_back(input + ":" + (made_by(input, "DequantizeLinear") ? "Int8" : carried));
    layer.writes.push_back(output + ":" + (read_by(output, "QuantizeLinear") && !IS_RTX ? "Int8" : carried));
    layers.push_back(layer);
  }
  return layers;
}
// As TensorRT-RTX lists them in its log.
inline std::string listed(std::vector<Layer> const& layers) {
  auto tensors = [](std::vector<std::string> const& named) {
    std::string text;
    for (auto const& one : named) { auto at = one.rfind(':'); text += (text.empty() ? " { Name: " : ", { Name: ") + one.substr(0, at) + ", Dimensions: [], Datatype: " + one.substr(at + 1) + " }"; }
    return "[" + text + "]";
  };
  std::string text = "Layers:\n";
  for (auto const& layer : layers) {
    std::string nodes;
    for (auto const& node : split(layer.nodes, '\x1e')) nodes += "[ONNX Layer: " + node + "]";
    text += "Name: " + layer.name + ", LayerType: " + (layer.kind == "convolution" ? "correlation" : layer.kind) + ", Inputs: " + tensors(layer.reads) + ", Constants: [], Outputs: " + tensors(layer.writes) + ", TacticName: standin, StreamId: 0, Metadata: " + nodes + "\n";
  }
  return text + "I/O Tensors:\n";
}

struct Builder final : IBuilder, AnyBuilder {
  ILogger* logger;
  explicit Builder(ILogger* log) : logger(log) { mImpl = this; }
  IHostMemory* failed(char const* text) const { say(logger, Severity::kERROR, std::string("IBuilder::buildSerializedNetwork: ") + text); return nullptr; }

  bool step(BuilderConfig const& config, int done) const { // false: stop
#if NV_TENSORRT_MAJOR != 8
    if (config.monitor && done == 0) config.monitor->phaseStart("Building Engine", nullptr, 4);
    if (config.monitor && done > 0 && !config.monitor->stepComplete("Building Engine", done - 1)) return false;
    if (config.monitor && done == 4) config.monitor->phaseFinish("Building Engine");
#endif
    return true;
  }
  // STANDIN_BUILD_MS is what timing a network takes that the cache does not know.
  bool build(Network const& network, BuilderConfig& config, Plan& plan) const {
    std::string line = words("%016llx level %d", (unsigned long long)checksum(network.file.bytes.data(), network.file.bytes.size()), config.level);
    plan.was_timed = !config.timings->has(line);
    for (int done = 0; done <= 4; done++) {
      if (done && plan.was_timed) usleep(useconds_t(setting("STANDIN_BUILD_MS") * 250));
      if (!step(config, done)) return false;
    }
    config.timings->add(line);
    say(logger, Severity::kINFO, plan.was_timed ? "Timed every kernel." : "Took every timing from the timing cache.");
    return true;
  }
  IHostMemory* buildSerializedNetwork(INetworkDefinition& given, IBuilderConfig& with) noexcept {
    auto const& network = static_cast<Network&>(given);
    auto& config = static_cast<BuilderConfig&>(with);
    Plan plan;
    for (auto const& in : network.inputs) plan.ends.push_back({in->name, true, in->type, shape_of(in->dims)});
    for (auto const& out : network.outputs) plan.ends.push_back({out->name, false, out->type, shape_of(out->dims)});
    if (network.inputs.empty() || network.outputs.empty()) return failed("Error Code 4: API Usage Error (Network must have at least one output)");
    for (std::size_t i = 0; i < config.profiles.size(); i++)
      for (auto const& entry : config.profiles[i]->ranges) plan.ranges.push_back({entry.first, entry.second.least, entry.second.best, entry.second.most, int(i)});
    for (auto const& end : plan.ends)
      if (end.input && end.shape[0] < 0 && !plan.range(end.name, 0)) return failed("Error Code 4: API Usage Error (Network has dynamic or shape inputs, but no optimization profile has been defined.)");
    plan.flags = config.flags, plan.onnx = network.file.bytes, plan.layers = layers_of(network);
    plan.detailed = config.verbosity == ProfilingVerbosity::kDETAILED;
#if NV_TENSORRT_MAJOR == 8
    plan.shares_profile = config.getPreviewFeature(PreviewFeature::kPROFILE_SHARING_0806);
#endif
    if (!build(network, config, plan)) return nullptr;
    if (IS_RTX && plan.detailed) say(logger, Severity::kVERBOSE, listed(plan.layers));
    return new Memory(bytes_of_plan(plan));
  }
  int32_t getMaxDLABatchSize() const noexcept { return 4096; }
  int32_t getNbDLACores() const noexcept { return setting("STANDIN_DLA_CORES"); }
  IBuilderConfig* createBuilderConfig() noexcept { return new BuilderConfig(logger); }
  INetworkDefinition* createNetworkV2(NetworkDefinitionCreationFlags flags) noexcept { return new Network(this, flags); }
  IOptimizationProfile* createOptimizationProfile() noexcept { auto* made = new OptimizationProfile; kept.emplace_back(made); return made; }
  std::vector<std::unique_ptr<OptimizationProfile>> kept; // the builder's, as in TensorRT
  void setErrorRecorder(IErrorRecorder*) noexcept {}
  IErrorRecorder* getErrorRecorder() const noexcept { return nullptr; }
  ILogger* getLogger() const noexcept { return logger; }
  bool setMaxThreads(int32_t) noexcept { return true; }
  int32_t getMaxThreads() const noexcept { return 1; }
  bool isNetworkSupported(INetworkDefinition const&, IBuilderConfig const&) const noexcept { return true; }
  bool platformHasFastFp16() const noexcept { return true; }
  bool platformHasFastInt8() const noexcept { return true; }
  bool platformHasTf32() const noexcept { return true; }
  void reset() noexcept { kept.clear(); }
};

STANDIN_API void* createInferBuilder_INTERNAL(void* given, int32_t) noexcept {
  auto* logger = static_cast<ILogger*>(given);
  int error = IS_RTX ? 0 : cuda().error(); // RTX builds without a driver
  if (!error) return static_cast<IBuilder*>(new Builder(logger));
  say(logger, NV_TENSORRT_MAJOR == 8 ? Severity::kWARNING : Severity::kERROR, NV_TENSORRT_MAJOR == 8 ? cuda_words(error) : "createInferBuilder: Error Code 6: API Usage Error (" + cuda_words(error) + ")");
  if (NV_TENSORRT_MAJOR == 10 && NV_TENSORRT_MINOR < 13) std::abort(); // seen on 10.6
  return nullptr; // which the bindings make a TypeError of
}
