"""The joint search over architecture, sparsity, precision and layout: a room kept free for it."""
