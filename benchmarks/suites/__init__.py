"""The evaluation suites: data sets read and checked, features computed once, exact scores, a JSON file for each."""
