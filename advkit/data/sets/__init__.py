"""One file per data set; each registers itself with `advkit.data.dataset.dataset`."""
