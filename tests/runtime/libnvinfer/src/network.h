// A network as the parser makes it: ends and layers that Python can look at, and the file behind them.
#pragma once
#include "plan.h"

struct Tensor final : ITensor, AnyTensor {
  std::string name;
  DataType type;
  Dims dims;
  bool input, output;
  Tensor(End const& end, bool out) : name(end.name), type(end.type), dims(dims_of(end.shape)), input(end.input), output(out) { mImpl = this; }
  void setName(char const* given) noexcept { name = given; }
  char const* getName() const noexcept { return name.c_str(); }
  void setDimensions(DimsIn given) noexcept { dims = given; }
  Dims getDimensions() const noexcept { return dims; }
  DataType getType() const noexcept { return type; }
  bool isNetworkInput() const noexcept { return input; }
  bool isNetworkOutput() const noexcept { return output; }
  TensorLocation getLocation() const noexcept { return TensorLocation::kDEVICE; }
  bool isShapeTensor() const noexcept { return false; }
  bool isExecutionTensor() const noexcept { return true; }
};

inline LayerType layer_type(std::string const& op) {
  static std::map<std::string, LayerType> const KNOWN{{"Conv", LayerType::kCONVOLUTION}, {"QuantizeLinear", LayerType::kQUANTIZE},
    {"DequantizeLinear", LayerType::kDEQUANTIZE}, {"Relu", LayerType::kACTIVATION}, {"Cast", LayerType::kCAST}, {"Transpose", LayerType::kSHUFFLE},
    {"Gemm", LayerType::kMATRIX_MULTIPLY}, {"MatMul", LayerType::kMATRIX_MULTIPLY}, {"Constant", LayerType::kCONSTANT}};
  auto found = KNOWN.find(op);
  return found == KNOWN.end() ? LayerType::kELEMENTWISE : found->second;
}

struct NetworkLayer final : ILayer, AnyLayer {
  std::string name, metadata;
  LayerType type;
  std::vector<std::shared_ptr<Tensor>> outputs;
  NetworkLayer(OnnxNode const& node, DataType carries) : name(node.name), metadata("[ONNX Layer: " + node.name + "]"), type(layer_type(node.op)) {
    mLayer = this;
    for (auto const& output : node.outputs) outputs.push_back(std::make_shared<Tensor>(End{output, false, carries, {}}, false));
  }
  LayerType getType() const noexcept { return type; }
  void setName(char const* given) noexcept { name = given; }
  char const* getName() const noexcept { return name.c_str(); }
  int32_t getNbInputs() const noexcept { return 0; }
  ITensor* getInput(int32_t) const noexcept { return nullptr; }
  int32_t getNbOutputs() const noexcept { return int32_t(outputs.size()); }
  ITensor* getOutput(int32_t index) const noexcept { return index < getNbOutputs() ? outputs[std::size_t(index)].get() : nullptr; }
  DataType getOutputType(int32_t index) const noexcept { return outputs[std::size_t(index)]->type; }
  void setMetadata(char const* given) noexcept { metadata = given; }
  char const* getMetadata() const noexcept { return metadata.c_str(); }
};

struct Network final : INetworkDefinition, AnyNetworkDefinition {
  IBuilder* builder;
  NetworkDefinitionCreationFlags flags;
  std::string name = "Unnamed Network 0";
  OnnxFile file;
  std::vector<std::unique_ptr<Tensor>> inputs, outputs;
  std::vector<std::unique_ptr<NetworkLayer>> layers;
  Network(IBuilder* made_by, NetworkDefinitionCreationFlags given) : builder(made_by), flags(given) { mImpl = this; }

  DataType carries() const { // the type of most of its tensors: that of its weights of several axes
    for (auto const& weight : file.weights) if (weight.second.shape.size() > 1 && weight.second.type == 10) return DataType::kHALF;
    return DataType::kFLOAT;
  }
  void fill(OnnxFile given) {
    file = std::move(given);
    for (auto const& in : file.inputs) inputs.emplace_back(new Tensor({in.name, true, type_of_onnx(in.type), in.shape}, false));
    for (auto const& out : file.outputs) outputs.emplace_back(new Tensor({out.name, false, type_of_onnx(out.type), out.shape}, true));
    for (auto const& node : file.nodes) layers.emplace_back(new NetworkLayer(node, carries()));
  }
  int32_t getNbLayers() const noexcept { return int32_t(layers.size()); }
  ILayer* getLayer(int32_t index) const noexcept { return index < getNbLayers() ? layers[std::size_t(index)].get() : nullptr; }
  int32_t getNbInputs() const noexcept { return int32_t(inputs.size()); }
  ITensor* getInput(int32_t index) const noexcept { return index < getNbInputs() ? inputs[std::size_t(index)].get() : nullptr; }
  int32_t getNbOutputs() const noexcept { return int32_t(outputs.size()); }
  ITensor* getOutput(int32_t index) const noexcept { return index < getNbOutputs() ? outputs[std::size_t(index)].get() : nullptr; }
  void setName(char const* given) noexcept { name = given; }
  char const* getName() const noexcept { return name.c_str(); }
  bool hasImplicitBatchDimension() const noexcept { return false; }
  void setErrorRecorder(IErrorRecorder*) noexcept {}
  IErrorRecorder* getErrorRecorder() const noexcept { return nullptr; }
  IBuilder& getBuilder() const noexcept { return *builder; }
  NetworkDefinitionCreationFlags getFlags() const noexcept { return flags; }
  bool getFlag(NetworkDefinitionCreationFlag flag) const noexcept { return flags >> int(flag) & 1; }
};
