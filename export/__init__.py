"""Models that leave Python: ONNX, ExecuTorch, and the microcontroller."""
