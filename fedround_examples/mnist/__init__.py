"""Three sites train a convolutional network on MNIST, without privacy. Start with README.md."""
