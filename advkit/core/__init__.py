"""Small things without opinions: errors, configuration, registries, random numbers, files, runs, norms."""
