"""The ways to name a model that is no checkpoint, one file each."""
