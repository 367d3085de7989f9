"""Causal CTC transformers for typing from surface EMG ("Scaling and Distilling Transformer Models for sEMG")."""
