"""Classifiers of every family, written small, as they come: as a module, from the older exporter, and from today's."""
