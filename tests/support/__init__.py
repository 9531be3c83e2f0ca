"""What tests share: small models, files and servers to test against, and programs that tests run."""
