"""Rivals: the class scores that compete for a pixel."""

from __future__ import annotations

import torch

_ONE_HALF = 1.5 * 2.0**-24  # the largest score whose sigmoid is 0.5 in float32


def rivals(logits: torch.Tensor) -> torch.Tensor:
    """Scores to choose from: one class has the background for a rival, at one half."""
    if logits.shape[1] > 1:
        return logits
    scores = logits.float()
    return torch.cat([torch.full_like(scores, _ONE_HALF), scores], 1)
