"""One file per regulariser; the decorator enrols it."""
