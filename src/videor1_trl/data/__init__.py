"""From records to batches: rows, their media in their places, encoded prompts. Imports nothing above `media`."""
