"""Attacks as small state machines over independent rows, and the engine that runs them."""
