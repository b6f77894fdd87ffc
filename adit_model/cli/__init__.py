"""The command ``adit``."""
