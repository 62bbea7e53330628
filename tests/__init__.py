"""Tests: one folder a room of research/, one file a module."""
