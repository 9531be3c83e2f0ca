"""Measures models on the drawn world: all figures of one model, and the paper's ablation in miniature."""
