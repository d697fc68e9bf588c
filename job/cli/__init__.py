"""The command line: the only place that prints to standard output or exits."""
