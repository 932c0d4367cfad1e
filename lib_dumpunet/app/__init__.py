"""Programs for people: the command line and the benchmarks. The only room that prints."""
