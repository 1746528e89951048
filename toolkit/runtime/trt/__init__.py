"""TensorRT engines as runners, from the plan's sidecar to a captured call."""
