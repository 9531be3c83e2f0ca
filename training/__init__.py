"""The contrastive + next-token-prediction recipe (installed as `vladva_training`)."""
