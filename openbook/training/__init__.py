"""Training: the only place with gradients, and the only place that may import torch.

Training reads a recipe and data and ends by writing a new, immutable model into the model store. Nothing that answers
questions may import this package; the import contracts and a test in a fresh process see to it.
"""
