"""How the convolutions of an sEMG transformer make frames of samples. Needs nothing but Python."""

import math


class SEMGTransformerFrames:
    """What follows from the fields of a configuration, which this is mixed into: `conv_kernel` and `conv_stride`."""

    @property
    def hop_length(self) -> int:
        """Samples from one frame to the next: 20, that is 100 frames/s at 2 kHz."""
        return math.prod(self.conv_stride)

    @property
    def receptive_field(self) -> int:
        """Samples that a frame sees: frame i sees samples `hop_length * i` to `hop_length * i + 40`."""
        samples = 1
        for kernel, stride in zip(reversed(self.conv_kernel), reversed(self.conv_stride), strict=True):
            samples = (samples - 1) * stride + kernel
        return samples

    def num_frames(self, samples: int) -> int:
        """Frames of a recording of `samples` samples: `(samples - 41) // 20 + 1`, 0 if it is shorter than a frame."""
        return max((samples - self.receptive_field) // self.hop_length + 1, 0)


__all__ = ["SEMGTransformerFrames"]
