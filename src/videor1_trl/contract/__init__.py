"""What must hold of a model before it is trained, checked on the model itself. Imports neither trainer nor scripts."""
