"""The Triton model repository and what builds it; no thresholds, no routing rules."""
