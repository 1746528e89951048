"""ONNX Runtime as a runner, and what has to be known of it."""
