"""Programs for people: the command line and the benchmarks. The only package that prints."""
