"""The engine of this process: two models, one loop."""
