"""From ranges to quantized graphs: Q/DQ for TensorRT, the CPU's form, scales, and what INT8 costs."""
