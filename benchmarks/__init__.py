"""Reproducible speed measurements: `python -m benchmarks` runs them all, `python -m benchmarks.NAME` one of them.

Ratios are taken within one run, the candidates alternating, because absolute times depend on the machine and on what
else it is doing.
"""
