"""Speed and fidelity: each prints a table, ratios from one run and one line of JSON; --check exits 1 below a bar."""
