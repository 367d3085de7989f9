"""From an integer program to C for GAP9: memory plan, code, verification, cost and report."""
