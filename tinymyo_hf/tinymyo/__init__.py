"""TinyMyo: configuration, model, feature extractor, converter of published checkpoints."""
