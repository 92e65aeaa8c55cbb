"""What of TensorRT-LLM is compiled."""
