"""A web page for a trained model: one's own videos, in a browser, without anything from elsewhere."""
