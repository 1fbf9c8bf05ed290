"""The six-step case. Light: the peers, which have none of the product's libraries, load it too."""
