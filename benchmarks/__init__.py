"""Evaluation: suites, published tables, reports, throughput (installed as `vladva_benchmarks`)."""
