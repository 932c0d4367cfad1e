"""Code that all hosts share."""
