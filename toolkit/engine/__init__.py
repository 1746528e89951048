"""From a bundle's ONNX files to TensorRT engines, on the device that runs them or for it."""
