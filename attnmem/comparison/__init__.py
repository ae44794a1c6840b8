"""Prediction beside measurement: which kernel PyTorch takes, as predicted and as a GPU answers."""
