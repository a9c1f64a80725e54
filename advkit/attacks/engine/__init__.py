"""The attack engine: the batch of rows, the oracle that queries the model, and the search model."""
