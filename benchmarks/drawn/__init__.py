"""The drawn world's measures: figures of the shipped model, and the paper's ablation in miniature."""
