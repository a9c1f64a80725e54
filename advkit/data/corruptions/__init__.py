"""Common corruptions, one family a file."""
