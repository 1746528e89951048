"""From a model to ONNX files in every precision, and from ONNX to TensorRT engines."""
