// The ONNX parser: what it logs, what it refuses in TensorRT's words, and a network of the rest.
#pragma once
#include "network.h"
#include <fstream>
#include <sstream>

struct ParserError final : nvonnxparser::AnyParserError {
  nvonnxparser::ErrorCode kind;
  std::string said, named, operation;
  int number;
  ParserError(nvonnxparser::ErrorCode k, std::string text, int node = -1, std::string name = "", std::string op = "")
      : kind(k), said(std::move(text)), named(std::move(name)), operation(std::move(op)), number(node) {}
  nvonnxparser::ErrorCode code() const { return kind; }
  char const* desc() const { return said.c_str(); }
  char const* file() const { return "standin/parser.h"; }
  int line() const { return 1; }
  char const* func() const { return "parse"; }
  int node() const { return number; }
  char const* nodeName() const { return named.c_str(); }
  char const* nodeOperator() const { return operation.c_str(); }
  char const* const* localFunctionStack() const { return nullptr; }
  int32_t localFunctionStackSize() const { return 0; }
};

struct Parser final : nvonnxparser::AnyParser {
  Network* network;
  ILogger* logger;
  std::vector<ParserError> errors;
  nvonnxparser::OnnxParserFlags flags = 0;
  Parser(Network* into, ILogger* log) : network(into), logger(log) {}

  bool failed(ParserError error) {
    say(logger, Severity::kERROR, error.said);
    errors.push_back(std::move(error));
    return false;
  }
  bool read(std::string bytes, char const* path) {
    OnnxFile file;
    if (!read_onnx(std::move(bytes), file)) return failed({nvonnxparser::ErrorCode::kMODEL_DESERIALIZE_FAILED, "Failed to parse ONNX model from file: " + std::string(path ? path : "")});
    say(logger, Severity::kINFO, words("----------------------------------------------------------------\nInput filename:   %s\nONNX IR version:  0.0.%d\nOpset version:    %d\nProducer name:    %s\n----------------------------------------------------------------", path ? path : "", int(file.ir), int(file.opset), file.producer.c_str()));
    if (file.external) return failed({nvonnxparser::ErrorCode::kINVALID_GRAPH, "the stand-in reads no weights beside the file"});
    for (std::size_t i = 0; i < file.nodes.size(); i++) {
      auto const& node = file.nodes[i];
      if (node.domain.empty() || node.domain == "ai.onnx") continue;
      return failed({nvonnxparser::ErrorCode::kUNSUPPORTED_NODE, "No importer registered for op: " + node.op + ". Attempting to import as plugin.", int(i), node.name, node.op});
    }
    network->fill(std::move(file));
    return true;
  }
  bool parse(void const* bytes, std::size_t size, char const* path) noexcept { return read(std::string(static_cast<char const*>(bytes), size), path); }
  bool parseFromFile(char const* path, int) noexcept {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) return failed({nvonnxparser::ErrorCode::kMODEL_DESERIALIZE_FAILED, "Failed to open file: " + std::string(path)});
    std::stringstream bytes;
    bytes << stream.rdbuf();
    return read(bytes.str(), path);
  }
  int getNbErrors() const noexcept { return int(errors.size()); }
  nvonnxparser::IParserError const* getError(int index) const noexcept { return index < getNbErrors() ? &errors[std::size_t(index)] : nullptr; }
  void clearErrors() noexcept { errors.clear(); }
  void setFlags(nvonnxparser::OnnxParserFlags given) noexcept { flags = given; }
  nvonnxparser::OnnxParserFlags getFlags() const noexcept { return flags; }
  void setFlag(nvonnxparser::OnnxParserFlag flag) noexcept { flags |= 1u << int(flag); }
  void clearFlag(nvonnxparser::OnnxParserFlag flag) noexcept { flags &= ~(1u << int(flag)); }
  bool getFlag(nvonnxparser::OnnxParserFlag flag) const noexcept { return flags >> int(flag) & 1; }
};

#if NV_TENSORRT_MAJOR >= 11 || IS_RTX
#define NOEXCEPT noexcept
#else
#define NOEXCEPT
#endif
STANDIN_API void* createNvOnnxParser_INTERNAL(void* network, void* logger, int) NOEXCEPT {
  auto* into = static_cast<Network*>(static_cast<INetworkDefinition*>(network));
  return static_cast<nvonnxparser::IParser*>(new Parser(into, static_cast<ILogger*>(logger)));
}
STANDIN_API void* createNvOnnxParserRefitter_INTERNAL(void*, void*, int32_t) NOEXCEPT { refuse("IParserRefitter"); }
STANDIN_API int getNvOnnxParserVersion() NOEXCEPT { return NV_ONNX_PARSER_VERSION; }
