"""What the core stands on: servers and processes, files, file formats, fast kernels, faults."""
