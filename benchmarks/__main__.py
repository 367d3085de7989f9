"""All measurements, one after the other: `python -m benchmarks` or `make bench`."""

from benchmarks import (
    biosignal_images,
    ctc_latency,
    ctc_streaming,
    dtw_speed,
    frames_speed,
    model_speed,
    prepare_corpus,
    pretraining_speed,
    read_continuous,
    read_windows,
    speech_speed,
    speech_training,
    vocoder_speed,
    word_decoding,
)

read_windows.main([])
read_continuous.main([])
prepare_corpus.main([])
model_speed.main([])
frames_speed.main([])
speech_speed.main([])
speech_training.main([])
ctc_latency.main([])
ctc_streaming.main([])
word_decoding.main([])
dtw_speed.main([])
pretraining_speed.main([])
pretraining_speed.main(["--device", "cuda"])
vocoder_speed.main([])
biosignal_images.main([])
