"""Videos and images as frames: decoding, sampling, reading ahead, settings, columns. Imports nothing above `models`."""
