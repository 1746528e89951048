"""The machine's state while something is measured: what a latency depends on, and what it costs in energy."""
