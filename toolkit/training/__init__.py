"""Training the ResNets; importing this room imports PyTorch."""
