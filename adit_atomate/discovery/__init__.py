"""From samples to ranked, relaxed candidates."""
