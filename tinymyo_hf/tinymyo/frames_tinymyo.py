"""How the stems of TinyMyo make frames of samples. Needs nothing but Python."""


class TinyMyoFrames:
    """What follows from the fields of a configuration, which this is mixed into.

    It reads `stem`, `patch_size`, `stem_stride`, `stem_kernel_size` and `num_stem_blocks`.
    """

    @property
    def frame_stride(self) -> int:
        """Samples from one token of a channel, or one frame of all channels, to the next."""
        return {
            "patches": self.patch_size,
            "convolution": self.stem_stride,
            "residual": 2**self.num_stem_blocks,
        }[self.stem]

    def num_frames(self, samples: int) -> int:
        """Frames that the stem makes of a recording of `samples` samples.

        Frame f of the convolution sees samples `f * stem_stride` to `f * stem_stride + stem_kernel_size - 1`; what
        belongs to the frames of a target sampled like the recording is therefore
        `target[stem_kernel_size - 1 :: stem_stride]`. Frame f of the residual stem begins at sample `8 f`, and the last
        one may be in part beyond the end.

        Raises:
            ValueError: the recording is shorter than one frame of the convolution, or empty.
        """
        if self.stem == "residual":
            if samples < 1:
                raise ValueError("no samples: give a longer recording.")
            return -(-samples // self.frame_stride)
        if samples < self.stem_kernel_size:
            raise ValueError(
                f"{samples} samples are fewer than one frame sees (stem_kernel_size={self.stem_kernel_size}): "
                "give a longer recording, or pad it and pass attention_mask."
            )
        return (samples - self.stem_kernel_size) // self.stem_stride + 1


__all__ = ["TinyMyoFrames"]
