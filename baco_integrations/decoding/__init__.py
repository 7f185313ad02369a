"""The heart: signals, routes, words, samples, and the loop that runs them; tensors, no text."""
