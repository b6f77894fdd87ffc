"""What is asked of a structure before it exists, kind by kind."""
