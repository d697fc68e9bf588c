"""Street scenes painted with exact ground truth, and a small SegFormer trained on them."""
