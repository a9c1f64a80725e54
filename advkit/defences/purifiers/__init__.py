"""One file per defence."""
