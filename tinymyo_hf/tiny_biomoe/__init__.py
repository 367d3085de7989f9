"""Tiny-BioMoE: embeddings of images of biosignals, by a SpectFormer and an EfficientViT."""
