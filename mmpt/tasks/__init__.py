"""Tasks: the dataset, the model and the loss of one config, put together."""
