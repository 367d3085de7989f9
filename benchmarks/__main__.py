"""All measurements, one after the other: `python -m benchmarks` or `make bench`."""

from benchmarks import model_speed, read_windows

read_windows.main([])
model_speed.main([])
