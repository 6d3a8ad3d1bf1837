"""One prompt, many completions: packing, packed attention, the shared cache. Imports nothing above `data`."""
