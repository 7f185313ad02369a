"""Base and aligned as one thing: loading, checking, prompts and the classes of their vocabulary."""
