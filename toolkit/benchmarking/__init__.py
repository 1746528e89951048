"""How long a bundle's runners take on this machine, in which state, and against what."""
