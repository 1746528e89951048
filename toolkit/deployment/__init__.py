"""A bundle in use: in a program, on a device after an upgrade, in a server."""
