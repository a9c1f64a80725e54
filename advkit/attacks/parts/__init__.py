"""Shared parts of attacks: steps, random moves, decision boundaries, schedules."""
