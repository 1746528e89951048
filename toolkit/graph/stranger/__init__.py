"""An ONNX file from elsewhere: what it may ask of this machine is counted, then tried elsewhere, then run."""
