"""What runs attacks: the batch of rows, the door to the model, the copy to search on."""
