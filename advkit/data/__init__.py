"""Images with labels: the data registry, and the files that hold them."""
