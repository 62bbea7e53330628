"""Where images come from: rendered hands on the fly, a prepared test set, and files from outside."""
