"""A corpus of the size of Ninapro DB5, killed in the middle of its preparation and resumed. Minutes long."""

import os
import signal
import time

import pytest
from ninapro_files import write_db5_tree
from test_hub import FORK, contents

from dataset_builders.hub import prepare

OPTIONS = {"window_length": 200, "stride": 100}


@pytest.mark.slow
def test_db5_killed_twice_and_resumed_is_identical(tmp_path):
    root = write_db5_tree(tmp_path / "raw", subjects=10)
    whole = prepare("ninapro_db5", root, tmp_path / "whole", 2, **OPTIONS)
    output, partial = tmp_path / "resumed", tmp_path / "resumed.incomplete"
    for files in (10, 50):
        process = FORK.Process(target=prepare, args=("ninapro_db5", root, output, 2), kwargs=OPTIONS)
        process.start()
        while len(list(partial.glob("data/*.parquet"))) < files:
            assert process.is_alive()
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert not output.exists()
        time.sleep(1)  # the workers notice
    prepare("ninapro_db5", root, output, 2, **OPTIONS)
    assert contents(output) == contents(whole)
    assert len(list((output / "data").iterdir())) == 90
