"""What a network can answer on a whole ball of images: its layers read into a graph, and bounds on them."""
