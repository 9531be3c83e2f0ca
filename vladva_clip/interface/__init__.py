"""What people say to the package and what it says back: arguments, devices, precisions, missing extras."""
