"""Runners: one small protocol in front of every inference engine."""
