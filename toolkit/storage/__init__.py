"""How anything lies on disk: whole or not at all, bounded before it is read, described once."""
