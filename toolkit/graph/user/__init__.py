"""A user's ONNX file: what it may ask of this machine is counted, then tried elsewhere, then run."""
