"""The one form: opset 17, constants folded, an open batch, operators that every TensorRT reads alike."""
