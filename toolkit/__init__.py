"""From a trained 32x32 ResNet to a checked INT8 TensorRT bundle for the edge."""

__version__ = "0.1.0"
