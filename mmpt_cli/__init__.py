"""Commands: arguments in, one call, exit code out."""
