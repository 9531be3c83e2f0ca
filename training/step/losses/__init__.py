"""The losses of the recipe: functions of features and hidden states that know no model."""

from vladva_training.step.losses.contrastive import hardness_weighted_info_nce, info_nce, sigmoid_loss
from vladva_training.step.losses.next_token import next_token_loss

__all__ = ["hardness_weighted_info_nce", "info_nce", "next_token_loss", "sigmoid_loss"]
