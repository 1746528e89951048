"""The version of this release; hatch reads it for the wheel."""

__version__ = "0.1.0"
