"""From a request to structures."""
