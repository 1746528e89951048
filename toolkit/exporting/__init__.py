"""From a model to a bundle: every precision's graph, checked, measured and judged, written whole."""
