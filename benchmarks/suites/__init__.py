"""The evaluation suites: read and check data sets, compute features once, score them, write a JSON file for each."""
