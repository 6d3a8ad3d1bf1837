"""Texts, without torch: wording of questions, messages, choices, numbers and how an answer is judged. Imports nothing of the package."""
