// A libnvinfer of our own for NVIDIA's real Python bindings: one engine kind, on the stand-in libcuda. No kernel of NVIDIA's.
#include "builder.h"
#include "engine.h"

STANDIN_API void* createInferRefitter_INTERNAL(void*, void*, int32_t) noexcept { refuse("IRefitter"); }
STANDIN_API IPluginRegistry* getPluginRegistry() noexcept { return nullptr; }
STANDIN_API IPluginRegistry* getBuilderPluginRegistry(EngineCapability) noexcept { return nullptr; }
STANDIN_API bool initLibNvInferPlugins(void*, char const*) { return true; }
STANDIN_API int32_t getInferLibVersion() noexcept { return NV_TENSORRT_MAJOR * (NV_TENSORRT_MAJOR == 8 ? 1000 : 10000) + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH; }

#if NV_TENSORRT_MAJOR == 8 // its bindings want the parsers of Caffe and UFF by name
#include "NvCaffeParser.h"
#include "NvUffParser.h"
nvcaffeparser1::ICaffeParser* nvcaffeparser1::createCaffeParser() noexcept { refuse("ICaffeParser"); }
void nvcaffeparser1::shutdownProtobufLibrary() noexcept {}
nvuffparser::IUffParser* nvuffparser::createUffParser() noexcept { refuse("IUffParser"); }
nvuffparser::FieldMap::FieldMap(char const*, void const*, FieldType, int32_t) { refuse("FieldMap"); }
#endif
