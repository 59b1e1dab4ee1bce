"""What plays environments to answer a question about them."""
