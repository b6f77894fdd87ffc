"""What is known of a structure before it exists."""
