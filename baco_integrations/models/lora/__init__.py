"""One model and an adapter as a pair."""
