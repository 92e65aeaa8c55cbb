"""The PyTorch backend: CPU and CUDA."""
