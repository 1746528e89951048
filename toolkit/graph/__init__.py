"""ONNX graphs: from PyTorch or a user's file to the one form that every TensorRT reads alike."""
