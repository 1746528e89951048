// As much of an ONNX file as a plan needs: names, types and shapes at its ends, its nodes, what its weights are made of.
#pragma once
#include "standin.h"

struct OnnxTensor { std::string name; int type = 0; std::vector<int64_t> shape; };
struct OnnxNode { std::string name, op, domain; std::vector<std::string> inputs, outputs; };
struct OnnxFile {
  std::string bytes, producer;
  int64_t ir = 0, opset = 0;
  bool has_graph = false, external = false;
  std::vector<OnnxTensor> inputs, outputs;
  std::vector<OnnxNode> nodes;
  std::map<std::string, OnnxTensor> weights;
};

// Protobuf's wire format: a field is a number, a kind, and a varint or so many bytes.
struct Wire {
  char const *at, *end;
  bool broken = false;
  explicit Wire(std::string const& text) : at(text.data()), end(at + text.size()) {}
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (at >= end) break;
      unsigned char byte = *at++;
      value |= uint64_t(byte & 127) << shift;
      if (byte < 128) return value;
    }
    broken = true;
    return 0;
  }
  // The next field: its number, and what it holds as a number or as bytes; 0 at the end.
  int next(uint64_t& number, std::string& bytes) {
    if (at >= end || broken) return 0;
    uint64_t key = varint();
    bytes.clear();
    uint64_t size = (key & 7) == 1 ? 8 : (key & 7) == 5 ? 4 : 0;
    if ((key & 7) == 0) number = varint();
    else if ((key & 7) == 2) size = varint();
    else if (!size) broken = true;
    if (broken || size > uint64_t(end - at)) { broken = true; return 0; }
    bytes.assign(at, size), at += size;
    return int(key >> 3);
  }
};

template <class Each> bool fields(std::string const& message, Each each) {
  Wire wire(message);
  uint64_t number = 0;
  std::string bytes;
  while (int field = wire.next(number, bytes)) each(field, number, bytes);
  return !wire.broken;
}

inline OnnxTensor value_info(std::string const& message) {
  OnnxTensor tensor;
  auto dimension = [&](int, uint64_t, std::string const& bytes) {
    int64_t length = -1;
    fields(bytes, [&](int field, uint64_t number, std::string const&) { if (field == 1) length = int64_t(number); });
    tensor.shape.push_back(length);
  };
  auto tensor_type = [&](int field, uint64_t number, std::string const& bytes) {
    if (field == 1) tensor.type = int(number);
    if (field == 2) fields(bytes, dimension);
  };
  fields(message, [&](int field, uint64_t, std::string const& bytes) {
    if (field == 1) tensor.name = bytes;
    if (field == 2) fields(bytes, [&](int kind, uint64_t, std::string const& type) { if (kind == 1) fields(type, tensor_type); });
  });
  return tensor;
}

inline OnnxNode node_of(std::string const& message) {
  OnnxNode node;
  fields(message, [&](int field, uint64_t, std::string const& bytes) {
    if (field == 1) node.inputs.push_back(bytes);
    if (field == 2) node.outputs.push_back(bytes);
    if (field == 3) node.name = bytes;
    if (field == 4) node.op = bytes;
    if (field == 7) node.domain = bytes;
  });
  return node;
}

inline OnnxTensor weight_of(std::string const& message, bool& external) {
  OnnxTensor weight;
  fields(message, [&](int field, uint64_t number, std::string const& bytes) {
    if (field == 1 && bytes.empty()) weight.shape.push_back(int64_t(number));
    if (field == 1 && !bytes.empty()) { // packed
      Wire wire(bytes);
      while (wire.at < wire.end && !wire.broken) weight.shape.push_back(int64_t(wire.varint()));
    }
    if (field == 2) weight.type = int(number);
    if (field == 8) weight.name = bytes;
    if (field == 14) external |= number == 1;
  });
  return weight;
}

inline bool read_graph(std::string const& message, OnnxFile& file) {
  std::vector<OnnxTensor> inputs;
  bool whole = fields(message, [&](int field, uint64_t, std::string const& bytes) {
    if (field == 1) file.nodes.push_back(node_of(bytes));
    if (field == 5) { auto weight = weight_of(bytes, file.external); file.weights[weight.name] = weight; }
    if (field == 11) inputs.push_back(value_info(bytes));
    if (field == 12) file.outputs.push_back(value_info(bytes));
  });
  for (auto const& input : inputs)
    if (!file.weights.count(input.name)) file.inputs.push_back(input);
  return whole;
}

// False where the bytes are no protobuf at all; what is whole protobuf and no ONNX is an empty network, as for TensorRT.
inline bool read_onnx(std::string bytes, OnnxFile& file) {
  bool whole = fields(bytes, [&](int field, uint64_t number, std::string const& inner) {
    if (field == 1) file.ir = int64_t(number);
    if (field == 2) file.producer = inner;
    if (field == 7) file.has_graph = read_graph(inner, file);
    if (field == 8) {
      std::string domain;
      int64_t opset = 0;
      fields(inner, [&](int f, uint64_t n, std::string const& b) { if (f == 1) domain = b; if (f == 2) opset = int64_t(n); });
      if (domain.empty() || domain == "ai.onnx") file.opset = opset;
    }
  });
  file.bytes = std::move(bytes);
  return whole && (file.has_graph || file.nodes.empty());
}
