"""What the package knows about models: encoding, positions, tokens, the vision tower, adapters. Imports `text` and the types of `media` alone."""
