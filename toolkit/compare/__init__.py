"""Two runners on the same images: flips, distances, intervals and the gate."""
