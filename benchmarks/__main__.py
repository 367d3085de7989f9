"""All measurements, one after the other: `python -m benchmarks` or `make bench`."""

from benchmarks import model_speed, prepare_corpus, read_continuous, read_windows

read_windows.main([])
read_continuous.main([])
prepare_corpus.main([])
model_speed.main([])
