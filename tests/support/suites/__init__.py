"""Small copies of benchmark data sets, and the results of running them."""
