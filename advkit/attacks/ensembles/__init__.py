"""Plans of several attacks, one file each."""
