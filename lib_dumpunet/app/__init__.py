"""The command line, the studio and the benchmarks; the only package that prints."""
