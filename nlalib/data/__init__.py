"""Images, labels and votes as an index; knows nothing of networks or training."""
