"""What an ONNX file from elsewhere may ask of this machine: counted first, then tried where it does no harm."""
