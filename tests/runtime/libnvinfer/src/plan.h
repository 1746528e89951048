// A plan: lines of text about its ends, profiles and layers, then the ONNX file, then a checksum of it all.
#pragma once
#include "onnx_file.h"

inline DataType type_of_onnx(int type) {
  switch (type) {
  case 1: return DataType::kFLOAT;
  case 2: return DataType::kUINT8;
  case 3: return DataType::kINT8;
  case 9: return DataType::kBOOL;
  case 10: return DataType::kHALF;
  case 16: return DataType(7); // kBF16, which 8.6 has not
  case 7: return NV_TENSORRT_MAJOR == 8 ? DataType::kINT32 : DataType(8); // kINT64
  default: return DataType::kINT32;
  }
}
inline int64_t bytes_of_type(DataType type) {
  static int const BYTES[] = {4, 2, 1, 4, 1, 1, 1, 2, 8};
  return BYTES[int(type)];
}
inline char const* name_of_type(DataType type) {
  static char const* const NAMES[] = {"Float", "Half", "Int8", "Int32", "Bool", "UInt8", "FP8", "BFloat16", "Int64"};
  return NAMES[int(type)];
}

using Shape = std::vector<int64_t>;
inline Shape shape_of(Dims const& dims) { return Shape(dims.d, dims.d + (dims.nbDims < 0 ? 0 : dims.nbDims)); }
inline Dims dims_of(Shape const& shape) {
  Dims dims{};
  dims.nbDims = int(shape.size());
  for (int i = 0; i < dims.nbDims; i++) dims.d[i] = shape[i];
  return dims;
}
inline std::string text_of(Shape const& shape) {
  std::string text;
  for (auto length : shape) text += (text.empty() ? "" : ",") + std::to_string(length);
  return text;
}
inline Shape shape_of_text(std::string const& text) {
  Shape shape;
  if (!text.empty()) for (auto const& part : split(text, ',')) shape.push_back(std::atoll(part.c_str()));
  return shape;
}

struct End { std::string name; bool input; DataType type; Shape shape; };           // of the network
struct Range { std::string input; Shape least, best, most; int profile; };          // of an input in a profile
struct Layer { std::string name, kind, nodes; std::vector<std::string> reads, writes; }; // nodes: joined by \x1e; reads: "tensor:Type"

struct Plan {
  std::string version = version_text(), onnx;
  uint64_t flags = 0;
  bool shares_profile = NV_TENSORRT_MAJOR != 8, detailed = false, was_timed = true;
  std::vector<End> ends;
  std::vector<Range> ranges;
  std::vector<Layer> layers;

  int profiles() const {
    int most = 0;
    for (auto const& range : ranges) most = std::max(most, range.profile + 1);
    return std::max(most, 1);
  }
  End const* end(char const* name) const {
    for (auto const& end : ends) if (name && end.name == name) return &end;
    return nullptr;
  }
  Range const* range(std::string const& input, int profile) const {
    for (auto const& range : ranges) if (range.input == input && range.profile == profile) return &range;
    return nullptr;
  }
};

static char const MAGIC[] = "standin-plan 1\n";

inline std::string joined(std::vector<std::string> const& parts, char by) {
  std::string text;
  for (std::size_t i = 0; i < parts.size(); i++) text += (i ? std::string(1, by) : "") + parts[i];
  return text;
}
inline std::string bytes_of_plan(Plan const& plan) {
  std::string text = MAGIC;
  auto line = [&](std::vector<std::string> const& parts) { text += joined(parts, '\t') + "\n"; };
  line({"version", plan.version});
  line({"flags", std::to_string(plan.flags)});
  line({"facts", std::to_string(plan.shares_profile), std::to_string(plan.detailed), std::to_string(plan.was_timed)});
  for (auto const& e : plan.ends) line({"end", e.name, std::to_string(e.input), std::to_string(int(e.type)), text_of(e.shape)});
  for (auto const& r : plan.ranges) line({"range", r.input, std::to_string(r.profile), text_of(r.least), text_of(r.best), text_of(r.most)});
  for (auto const& l : plan.layers) line({"layer", l.name, l.kind, l.nodes, joined(l.reads, ';') + ";", joined(l.writes, ';') + ";"});
  text += "\n" + plan.onnx;
  return text + words("%016llx", (unsigned long long)checksum(text.data(), text.size()));
}

inline bool read_line(Plan& plan, std::vector<std::string> const& parts) {
  auto number = [&](std::size_t i) { return std::atoll(parts.at(i).c_str()); };
  auto list = [&](std::size_t i) { auto found = split(parts.at(i), ';'); found.pop_back(); if (found.size() == 1 && found[0].empty()) found.clear(); return found; };
  if (parts[0] == "version") plan.version = parts.at(1);
  else if (parts[0] == "flags") plan.flags = std::strtoull(parts.at(1).c_str(), nullptr, 10);
  else if (parts[0] == "facts") plan.shares_profile = number(1), plan.detailed = number(2), plan.was_timed = number(3);
  else if (parts[0] == "end") plan.ends.push_back({parts.at(1), bool(number(2)), DataType(number(3)), shape_of_text(parts.at(4))});
  else if (parts[0] == "range") plan.ranges.push_back({parts.at(1), shape_of_text(parts.at(3)), shape_of_text(parts.at(4)), shape_of_text(parts.at(5)), int(number(2))});
  else if (parts[0] == "layer") plan.layers.push_back({parts.at(1), parts.at(2), parts.at(3), list(4), list(5)});
  else return false;
  return true;
}

// Empty, or why the bytes are no plan of this library, in TensorRT's words.
inline std::string plan_of_bytes(char const* data, std::size_t size, Plan& plan) {
  std::size_t magic = sizeof MAGIC - 1;
  if (size < magic + 18 || std::memcmp(data, MAGIC, magic)) return "Serialization assertion plan->header.magicTag == rt::kPLAN_MAGIC_TAG failed.Magic tag does not match";
  std::string text(data, size - 16), sum(data + size - 16, 16);
  if (words("%016llx", (unsigned long long)checksum(text.data(), text.size())) != sum) return "Serialization assertion plan->header.checksum failed.";
  std::size_t at = magic;
  while (text[at] != '\n') {
    std::size_t end = text.find('\n', at);
    if (!read_line(plan, split(text.substr(at, end - at), '\t'))) return "Serialization assertion failed.";
    at = end + 1;
  }
  plan.onnx = text.substr(at + 1);
  bool compatible = plan.flags >> int(BuilderFlag::kVERSION_COMPATIBLE) & 1;
  if (plan.version != version_text() && !compatible)
    return "The engine plan file is not compatible with this version of TensorRT, expecting library version " + version_text() + " got " + plan.version + ", please rebuild.";
  return "";
}
