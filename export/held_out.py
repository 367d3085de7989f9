"""Windows that nothing was calibrated on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export.calibration import CalibrationError, CalibrationWindows, read_windows
from export.checkpoint import Checkpoint


def held_out_windows(
    source: Checkpoint,
    calibration: str | Path | None,
    calibration_split: str,
    evaluation: str | Path | None,
    say: Callable[[str], None],
) -> CalibrationWindows | None:
    """Windows to compare an export with PyTorch on, all there are of the split "test"; None where there are none.

    Args:
        calibration, calibration_split: what the export is calibrated on; of such a folder the split "test" is taken,
            where that is another and suits the model.
        evaluation: taken instead, where it is given.
        say: told why a split is left out.

    Raises:
        CalibrationError: the windows of `evaluation` do not suit the model.
    """
    config = source.model.config
    if evaluation is not None:
        return read_windows(evaluation, source.extractor, config, "test")
    if calibration is None or calibration_split == "test" or not Path(calibration).expanduser().is_dir():
        return None
    from dataset_builders.prepared import load_prepared

    splits, _ = load_prepared(str(Path(calibration).expanduser()))
    if not len(splits.get("test", ())):
        return None
    try:
        return read_windows(calibration, source.extractor, config, "test")
    except CalibrationError as error:  # nobody asked for it
        say(f"leaving out the split test ({error})")
        return None
