"""ONNX graphs as PyTorch modules, of operations that the rest of advkit can differentiate and bound."""
