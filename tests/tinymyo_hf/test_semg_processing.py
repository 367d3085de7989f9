"""The processor of the sEMG transformers: both parts, labels, saving, the Auto classes."""

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoProcessor, AutoTokenizer

from tinymyo_hf import (
    EmgCharacterTokenizer,
    SEMGTransformerConfig,
    SEMGTransformerFeatureExtractor,
    SEMGTransformerForCTC,
    SEMGTransformerProcessor,
)


@pytest.fixture(scope="module")
def processor():
    return SEMGTransformerProcessor(SEMGTransformerFeatureExtractor(rotation=[1, 0]), EmgCharacterTokenizer())


@pytest.fixture(scope="module")
def recordings():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(32, length)).astype(np.float32) for length in (500, 400)]


def test_a_batch_to_train_on(processor, recordings):
    batch = processor(recordings, text=["Hi\n", "a"], sampling_rate=2000, return_tensors="pt")
    alone = processor.feature_extractor(recordings, 2000, return_tensors="pt")
    assert torch.equal(batch["input_values"], alone["input_values"])
    assert torch.equal(batch["attention_mask"], alone["attention_mask"])
    assert batch["labels"].tolist() == [[33, 8, 95], [0, -100, -100]]
    assert set(batch) == set(processor.model_input_names)
    config = SEMGTransformerConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_conv_pos_embedding_groups=4
    )
    output = SEMGTransformerForCTC(config)(**batch)
    assert torch.isfinite(output.loss)
    best = output.logits.argmax(-1)
    assert processor.decode(best, group_tokens=True) == processor.tokenizer.decode(best, group_tokens=True)


def test_one_part_alone(processor, recordings):
    assert "labels" not in processor(recordings[0], sampling_rate=2000)
    assert processor(text="Hi").input_ids == [33, 8]
    one = processor(recordings[0], text="Hi", sampling_rate=2000, return_tensors="np")
    assert one["labels"].tolist() == [[33, 8]] and one["input_values"].shape == (1, 32, 500)
    assert processor(recordings, text=["ab", "c"], sampling_rate=2000, padding=False)["labels"] == [[0, 1], [2]]


def test_saved_and_loaded(processor, recordings, tmp_path):
    processor.save_pretrained(tmp_path)
    SEMGTransformerConfig().save_pretrained(tmp_path)
    expected = processor(recordings, text=["ab", "c"], sampling_rate=2000, return_tensors="np")
    for loader in (SEMGTransformerProcessor, AutoProcessor):
        loaded = loader.from_pretrained(tmp_path)
        assert isinstance(loaded, SEMGTransformerProcessor)
        found = loaded(recordings, text=["ab", "c"], sampling_rate=2000, return_tensors="np")
        for name in ("input_values", "attention_mask", "labels"):
            np.testing.assert_array_equal(found[name], expected[name])
    assert AutoFeatureExtractor.from_pretrained(tmp_path).to_dict() == processor.feature_extractor.to_dict()
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == processor.tokenizer.get_vocab()


def test_a_checkpoint_whose_parts_were_saved_apart_has_a_processor(processor, tmp_path):
    for part in (processor.feature_extractor, processor.tokenizer, SEMGTransformerConfig()):
        part.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, SEMGTransformerProcessor)
    assert loaded.feature_extractor.rotation == [1, 0] and len(loaded.tokenizer) == 99


def test_what_does_not_fit(processor, recordings):
    with pytest.raises(ValueError, match="neither a recording nor text"):
        processor()
    with pytest.raises(ValueError, match="1 texts for 2 recordings"):
        processor(recordings, text="ab", sampling_rate=2000)
    with pytest.raises(TypeError):
        SEMGTransformerProcessor(processor.tokenizer, processor.feature_extractor)
