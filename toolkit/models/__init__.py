"""The ResNets, their training and their checkpoints; importing this room imports PyTorch."""
