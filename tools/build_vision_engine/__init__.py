"""Builds the vision engine of a checkpoint: InternViT, pixel unshuffle and projector as ONNX, then as TensorRT."""
