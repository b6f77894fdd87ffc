"""Sources of structures, and the array file they are cached in."""
