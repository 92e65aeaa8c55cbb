"""Runs once per model, not in the service."""
