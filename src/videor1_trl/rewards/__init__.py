"""Rewards: plain callables on lists, from `text` alone; no torch, no model."""
