"""Tensors to numbers: what a training loop's tensors say about its health. Nothing here makes a CPU wait for a device,
but for the eigenvalues of `networks.effective_rank`.
"""
