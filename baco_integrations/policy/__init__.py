"""The algorithm, on tensors: signals, routes, words, samples; no text, no models."""
