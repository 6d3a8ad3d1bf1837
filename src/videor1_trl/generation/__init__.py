"""Requests to a model and what comes back, by transformers, vLLM or a server. Imports nothing above `sharing`."""
