"""Fixtures shared by the tests: one thread, no network, and where the real data and the parity fixtures lie."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# Before any library that reads them at import is loaded.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="tinymyo-tests-hf-")
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402
import torch  # noqa: E402

SHARED = (Path(__file__).parents[1] / "../shared").resolve()

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _compiled_anew(request):
    """Slow tests compile: what earlier ones compiled of the same code counts against torch's limit of variants."""
    if request.node.get_closest_marker("slow"):
        torch._dynamo.reset()


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder beside the checkout with real recordings (`data`) and reference outputs (`fixtures`)."""
    if not SHARED.is_dir():
        pytest.skip(f"needs real data or reference outputs, which are not at {SHARED}")
    return SHARED


@pytest.fixture
def tiny_config():
    """A TinyMyo small enough for a forward pass in milliseconds: 4 channels, patches of 10 samples, 3 classes."""
    from tinymyo_hf.tinymyo.configuration_tinymyo import TinyMyoConfig

    return TinyMyoConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        patch_size=10,
        num_channels=4,
        id2label={0: "rest", 1: "fist", 2: "open"},
        label2id={"rest": 0, "fist": 1, "open": 2},
    )
