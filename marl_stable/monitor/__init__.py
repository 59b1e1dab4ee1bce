"""Watching a training: tensors to numbers (signals), numbers to symptoms (detectors)."""
