"""Sweeps of many runs; for now one after another on this machine."""
